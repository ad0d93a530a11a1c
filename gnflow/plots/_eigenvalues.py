"""Extreme eigenvalues of the NTK against flow time."""

from matplotlib.figure import Figure

from ._drawable import left_out_handle
from ._style import (
    Runs,
    axis_label,
    draw_lines,
    first_with,
    flow_handles,
    legend_above,
    line_handle,
    new_figure,
    styled,
    time_label,
)

_LINES = (("ntk_largest_eigenvalue", "-", "largest"), ("ntk_smallest_eigenvalue", "--", "smallest"))


@styled
def eigenvalue_figure(runs: Runs) -> Figure | None:
    """Largest (solid) and smallest (dashed) eigenvalue of the NTK Gram matrix, log-log.

    A line has gaps where rounding made the eigenvalue negative.

    **Arguments:**

    - `runs`: by the name of the flow a data set, or one for each seed.

    **Returns:** the figure, or None if no run has eigenvalues.
    """
    present = [line for line in _LINES if first_with(runs, line[0]) is not None]
    if not present:
        return None
    figure, axes = new_figure(1, 1, height=2.6)
    panel = axes[0]
    panel.set_xscale("log")
    panel.set_yscale("log")
    left_out = [draw_lines(panel, runs, name, linestyle) for name, linestyle, _ in present]
    described = first_with(runs, present[0][0])
    assert described is not None
    units = axis_label(described).partition(" [")[2]
    panel.set_ylabel("eigenvalue of the NTK" + (f"\n[{units}" if units else ""))
    panel.set_xlabel(time_label(runs))
    lines = [line_handle(style, label) for _, style, label in present]
    legend_above(figure, flow_handles(list(runs)), lines, [left_out_handle()] if any(left_out) else [])
    return figure
