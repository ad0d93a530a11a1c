"""The figure of a certificate: bounds as a band, with the observation inside."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import matplotlib.figure

_WIDTH, _PANEL_HEIGHT = 3.4, 2.2  # inches; the width is a paper's column
_OBSERVED, _BAND = "#D55E00", "#0072B2"  # Okabe and Ito
_LEAST = 1e-300


@dataclasses.dataclass(frozen=True)
class Curves:
    """Observation and bounds over time (or width, or step size), in one panel of a certificate's figure.

    **Attributes:**

    - `x`: the horizontal positions.
    - `x_label`, `y_label`: the labels of the axes.
    - `observed`, `lower`, `upper`: arrays like `x`. The bounds may be None.
    - `log_x`, `log_y`: whether the axes are logarithmic.
    """

    x: np.ndarray
    x_label: str
    y_label: str
    observed: np.ndarray
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    log_x: bool = True
    log_y: bool = True


def draw(title: str, panels: tuple[Curves, ...], instead: str) -> "matplotlib.figure.Figure":
    """A figure with a panel for each of the curves, or with the text `instead` if there are none."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7}):
        count = max(len(panels), 1)
        figure = Figure(figsize=(_WIDTH, _PANEL_HEIGHT * count + 0.3), layout="constrained")
        axes = figure.subplots(count, 1, squeeze=False)[:, 0]
        figure.suptitle(title)
        if not panels:
            axes[0].text(0.5, 0.5, instead, ha="center", va="center", wrap=True)
            axes[0].set_axis_off()
        for axis, curves in zip(axes, panels, strict=False):
            _draw_panel(axis, curves)
    return figure


def _draw_panel(axis, curves: Curves) -> None:
    lower, upper = curves.lower, curves.upper
    if lower is not None and upper is not None:
        axis.fill_between(curves.x, np.maximum(lower, _LEAST), upper, color=_BAND, alpha=0.2, linewidth=0)
    for bound, style, label in ((upper, "-", "upper bound"), (lower, "--", "lower bound")):
        if bound is not None:
            axis.plot(curves.x, bound, style, color=_BAND, linewidth=1, label=label)
    axis.plot(curves.x, curves.observed, "o", color=_OBSERVED, markersize=3, label="observed")
    axis.set(xscale="log" if curves.log_x else "linear", yscale="log" if curves.log_y else "linear")
    axis.set(xlabel=curves.x_label, ylabel=curves.y_label)
    axis.legend(frameon=False)
