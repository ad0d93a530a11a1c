"""Loss against flow time."""

from matplotlib.figure import Figure

from ._drawable import left_out_handle
from ._style import (
    Runs,
    draw_lines,
    first_with,
    flow_handles,
    legend_above,
    line_handle,
    new_figure,
    relative_time,
    styled,
    time_label,
)

_LINES = (("train_loss", "-", "train"), ("test_loss", "--", "test"))


@styled
def loss_figure(runs: Runs) -> Figure:
    """Training (solid) and test loss (dashed) of every flow, log-log above and log-linear below.

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
    present = [line for line in _LINES if first_with(runs, line[0]) is not None]
    left_out = False
    for name, linestyle, _ in present:
        left_out = draw_lines(upper, runs, name, linestyle) or left_out
        draw_lines(lower, runs, name, linestyle, relative_time)
    upper.set_xlabel(time_label(runs))
    lower.set_xlabel("time, relative to the end of the run")
    lower.set_xlim(-0.02, 1.02)
    lines = [line_handle(style, label) for _, style, label in present]
    legend_above(figure, flow_handles(list(runs)), lines, [left_out_handle()] if left_out else [])
    return figure
