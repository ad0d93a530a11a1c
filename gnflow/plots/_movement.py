"""How far kernel and features have moved, against flow time."""

import textwrap

from matplotlib.figure import Figure

from ._drawable import left_out_handle
from ._style import (
    Runs,
    axis_label,
    draw_lines,
    first_with,
    flow_handles,
    legend_above,
    new_figure,
    styled,
    time_label,
)

_PANELS = ("kernel_distance", "relative_ntk_change", "direction_distance_to_initial", "direction_distance_to_teacher")


@styled
def movement_figure(runs: Runs) -> Figure | None:
    """Change of the NTK and movement of the particles' directions, with a panel for each quantity that was measured.

    **Arguments:**

    - `runs`: by the name of the flow a data set, or one for each seed.

    **Returns:** the figure, or None if no run has any of these quantities.
    """
    described = {name: first_with(runs, name) for name in _PANELS}
    present = {name: variable for name, variable in described.items() if variable is not None}
    if not present:
        return None
    figure, axes = new_figure(len(present), 1, height=0.7 + 1.5 * len(present), sharex=True)
    left_out = False
    for panel, (name, variable) in zip(axes, present.items(), strict=True):
        panel.set_xscale("log")
        left_out = draw_lines(panel, runs, name) or left_out
        panel.set_ylabel(textwrap.fill(axis_label(variable), 22))
    axes[-1].set_xlabel(time_label(runs))
    legend_above(figure, flow_handles(list(runs)), [left_out_handle()] if left_out else [])
    return figure
