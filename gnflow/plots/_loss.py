"""Loss against flow time."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._drawable import drawable, left_out_handle
from ._style import (
    LOWEST,
    Runs,
    datasets_of,
    draw_lines,
    first_with,
    flow_handles,
    flow_time,
    legend_above,
    line_handle,
    lowest_handle,
    mark_lowest,
    new_figure,
    relative_time,
    style_of,
    styled,
    time_label,
)

_LINES = (("train_loss", "-", "train"), ("validation_loss", ":", "validation"), ("test_loss", "--", "test"))


@styled
def loss_figure(runs: Runs) -> Figure:
    """Training (solid), validation (dotted) and test loss (dashed) of every flow, log-log above and log-linear below.

    Stars are where the validation loss of a run is lowest among its saved states, on the curves of the validation and the test
    loss. Without validation data they are where the test loss is lowest.

    In the lower panel an exponential decay is a straight line. Its time is relative to the end of each run, because flows
    measure time in different units.

    **Arguments:**

    - `runs`: by the name of the flow a data set, or one for each seed.
    """
    figure, axes = new_figure(2, 1, height=4.3)
    upper, lower = axes
    upper.set_xscale("log")
    for panel in axes:
        panel.set_yscale("log")
        panel.set_ylabel("loss")
    selected_by = next((name for name in LOWEST if first_with(runs, name) is not None), None)
    present = [line for line in _LINES if first_with(runs, line[0]) is not None]
    left_out = False
    for name, linestyle, _ in present:
        left_out = draw_lines(upper, runs, name, linestyle) or left_out
        draw_lines(lower, runs, name, linestyle, relative_time)
        if selected_by is not None and name in LOWEST:
            _mark(upper, runs, name, selected_by, flow_time)
            _mark(lower, runs, name, selected_by, relative_time)
    upper.set_xlabel(time_label(runs))
    lower.set_xlabel("time, relative to the end of the run")
    lower.set_xlim(-0.02, 1.02)
    lines = [line_handle(style, label) for _, style, label in present]
    notes = [] if selected_by is None else [lowest_handle(LOWEST[selected_by])]
    notes += [left_out_handle()] if left_out else []
    legend_above(figure, flow_handles(list(runs)), lines, notes)
    return figure


def _mark(axes: Axes, runs: Runs, name: str, selected_by: str, time_of: Callable[[xr.Dataset], np.ndarray]) -> None:
    for index, several in enumerate(runs.values()):
        for data in datasets_of(several):
            if name in data and selected_by in data:
                time = drawable(time_of(data), axes.get_xscale())
                losses = drawable(data[name].to_numpy(), axes.get_yscale())
                mark_lowest(axes, time, losses, style_of(index).color, data[selected_by].to_numpy())
