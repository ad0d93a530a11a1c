"""Losses of several runs on one problem, over time and at equal loss."""

from matplotlib.figure import Figure

from ._drawable import left_out_handle
from ._style import (
    Runs,
    draw_lines,
    first_with,
    flow_handles,
    legend_on_top,
    line_handle,
    new_figure,
    styled,
    time_label,
)

_LINES = (("train_loss", "-", "train"), ("test_loss", "--", "test"))
_HEIGHT = 1.9  # inches, of a panel


@styled
def comparison_figure(runs: Runs) -> Figure:
    """Training (solid) and test loss (dashed) against time, and below the test loss against the training loss.

    The second panel compares runs at equal training loss, which needs no common unit of time. Training goes from left to right:
    its axis is reversed. It is left out if no run has a test loss.

    **Arguments:**

    - `runs`: by name a data set, or one for each seed.
    """
    present = [line for line in _LINES if first_with(runs, line[0]) is not None]
    has_test = len(present) == len(_LINES)
    figure, axes = new_figure(1 + has_test, 1, height=_HEIGHT * (1 + has_test))
    for panel in axes:
        panel.set_xscale("log")
        panel.set_yscale("log")
    left_out = False
    for name, linestyle, _ in present:
        left_out = draw_lines(axes[0], runs, name, linestyle) or left_out
    axes[0].set_xlabel(time_label(runs))
    axes[0].set_ylabel("loss")
    if has_test:
        left_out = draw_lines(axes[1], runs, "test_loss", "--", lambda data: data["train_loss"].to_numpy()) or left_out
        axes[1].invert_xaxis()
        axes[1].set_xlabel("training loss")
        axes[1].set_ylabel("test loss")
    lines = [line_handle(style, label) for _, style, label in present]
    legend_on_top(figure, flow_handles(list(runs)), lines, [left_out_handle()] if left_out else [])
    return figure
