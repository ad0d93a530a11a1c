"""A map of the regime of each cell, seed by seed."""

import numpy as np
import xarray as xr
from matplotlib.patches import Patch, Rectangle

from ..regimes import label_regimes, regime_counts, regime_names
from ._drawable import with_drawable_axes
from ._drawn import DrawnFigure
from ._marks import add_mark, mark_handles, state_mark
from ._panels import label_rows, panel_figure, panel_width, panels_of, require_axes, with_panel
from ._placing import Placing
from ._style import legend_on_top, line_handle, styled, title

# These colours also differ in brightness, so that they can be told apart in black and white.
_COLOURS = {"kernel": "#0072B2", "intermediate": "#D9D9D9", "feature learning": "#E69F00"}
_MARGIN = 0.55
_ROW_HEIGHT = 0.3


@styled
def regime_map_figure(
    dataset: xr.Dataset,
    *,
    x: str,
    y: str,
    over: str | None = None,
    variable: str = "kernel_distance",
    kernel: float = 0.1,
    feature: float = 0.5,
) -> DrawnFigure:
    """The regime of each cell by `gnflow.regimes.label_regimes`. A cell in which the seeds disagree is divided.

    Each seed has an equal share of the width of its cell. Seeds that failed or have not been computed are hatched.

    **Arguments:**

    - `dataset`: a sweep, as `gnflow.load` returns it.
    - `x`, `y`, `over`: axes of the data set.
    - `variable`: the quantity that defines the regimes.
    - `kernel`, `feature`: its thresholds, as for `label_regimes`.

    **Returns:** the figure and its table, the number of seeds in each regime.

    **Raises:** `ConfigError` for axes or variables that the data set does not have, or if the variable varies along another
    axis.
    """
    require_axes(dataset, variable, x, y, over)
    dataset = with_drawable_axes(dataset, (x, y, over))
    panels = panels_of(dataset, over, (x, y))
    across, up = Placing.of(dataset, x), Placing.of(dataset, y)
    row_height = _ROW_HEIGHT * up.values.size + 0.25 if up.scale == "category" else 0.0
    figure, axes, (_, columns) = panel_figure(panels, row_height or (2.0, 1.5, 1.3)[min(len(panels), 3) - 1], _MARGIN)
    parts, present = [], set()
    for own, panel in zip(axes, panels, strict=True):
        counts = regime_counts(label_regimes(panel.data, variable, kernel, feature))
        counts = counts.sortby([p.name for p in (across, up) if p.scale != "category"]).transpose(
            up.name, across.name, "regime"
        )
        shares = counts.to_numpy() / counts.to_numpy().sum(axis=-1, keepdims=True)
        for row, column in np.ndindex(*shares.shape[:2]):
            edges = _divided(across, column, shares[row, column])
            for index, name in enumerate(regime_names):
                if shares[row, column, index] == 0:
                    continue
                present.add(name)
                horizontal, vertical = edges[index : index + 2], up.edges[row : row + 2]
                if name in _COLOURS:
                    corner, width = (float(horizontal[0]), float(vertical[0])), float(horizontal[1] - horizontal[0])
                    height = float(vertical[1] - vertical[0])
                    own.add_patch(
                        Rectangle(corner, width, height, facecolor=_COLOURS[name], edgecolor="none", label=name)
                    )
                else:
                    add_mark(own, state_mark(name), horizontal, vertical)
        _separate(own, across, up)
        own.grid(False)
        across.apply(own, "x", panel_width(columns))
        up.apply(own, "y", row_height or 1.0)
        parts.append(counts.to_dataset())
    figure.supxlabel(across.label, fontsize=8)
    label_rows(axes, columns, up.label)
    bounds = {"kernel": f"≤ {kernel:g}", "intermediate": "between", "feature learning": f"≥ {feature:g}"}
    handles = [
        Patch(facecolor=colour, edgecolor="none", label=f"{name} ({bounds[name]})")
        for name, colour in _COLOURS.items()
        if name in present
    ]
    others = mark_handles([state_mark(name) for name in regime_names if name in present and name not in _COLOURS])
    heading = line_handle("", f"regime by {title(variable)}:")
    legend_on_top(figure, [heading], handles, others)
    return DrawnFigure(figure, {"": with_panel(parts, over, panels)})


def _divided(placing: Placing, index: int, shares: np.ndarray) -> np.ndarray:
    """Edges that divide a cell into these shares of its visible width."""
    left, right = placing.edges[index : index + 2]
    cumulated = np.concatenate([[0.0], np.cumsum(shares)])
    if placing.scale == "log":
        return left * (right / left) ** cumulated
    return left + (right - left) * cumulated


def _separate(axes, across: Placing, up: Placing) -> None:
    """Draw white lines between cells."""
    axes.vlines(across.edges[1:-1], up.edges[0], up.edges[-1], colors="white", linewidth=0.8, zorder=2)
    axes.hlines(up.edges[1:-1], across.edges[0], across.edges[-1], colors="white", linewidth=0.8, zorder=2)
