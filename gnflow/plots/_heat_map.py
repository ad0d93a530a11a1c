"""Phase diagrams: a quantity over two axes of a sweep, with a panel for each value of a third."""

import textwrap
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm

from ..regimes import axis_scale
from ._boundary_lines import boundary_handles, draw_boundary, require_thresholds
from ._colours import colour_scale, log_ticks
from ._drawable import bounded_summary, summary_of, with_drawable_axes
from ._drawn import DrawnFigure
from ._marks import mark_cells, mark_handles, meaning_of_undefined
from ._panels import label_rows, panel_figure, panel_width, panels_of, require_axes, with_panel
from ._placing import Placing
from ._style import axis_label, legend_on_top, line_handle, styled, title

_MARGIN = 0.85  # inches for the colour bar and the label of the horizontal axis
_ROW_HEIGHT = 0.34  # inches for each row of an axis of names


@styled
def heat_map_figure(
    dataset: xr.Dataset,
    variable: str,
    *,
    x: str,
    y: str,
    over: str | None = None,
    boundary_variable: str = "kernel_distance",
    thresholds: Sequence[float] = (0.1, 0.5),
) -> DrawnFigure:
    """The median of `variable` over the seeds in each cell, with the boundaries of the regimes.

    Cells are drawn at their values, on logarithmic axes where `gnflow.regimes.axis_scale` says so. All panels share axes and
    colours. A ratio is blue below 1 and red above. A logarithmic scale spans at most ten decades, and its pointed end stands
    for smaller values. Cells without a value are hatched, with a different hatch for cells that failed, were not computed or
    have no value. Cells in which only some seeds failed are hatched lightly over their colour.

    A boundary is where `boundary_variable`, if the data set has it, equals a threshold. It is bold for the median over the
    seeds and thin for each seed. On a vertical axis of names each row has an upright line at the crossing of the median, and a
    bar over the range of the seeds.

    **Arguments:**

    - `dataset`: a sweep, as `gnflow.load` returns it, or its `order_parameters`.
    - `variable`: the quantity.
    - `x`, `y`, `over`: axes of the data set, which may be "flow".
    - `boundary_variable`: the quantity that defines the boundaries.
    - `thresholds`: its values there, at most four.

    **Returns:** the figure and its tables: the summary over the seeds, and "boundary", the vertices of the boundaries.

    **Raises:** `ConfigError` for axes or variables that the data set does not have, or if the variable varies along another
    axis, which a figure would hide.
    """
    require_axes(dataset, variable, x, y, over)
    require_thresholds(thresholds)
    dataset = with_drawable_axes(dataset, (x, y, over))
    panels = panels_of(dataset, over, (x, y))
    across, up = Placing.of(dataset, x), Placing.of(dataset, y)
    summaries = [_ordered(summary_of(panel.data, variable), across, up) for panel in panels]
    bounded = boundary_variable in dataset and {x, y} <= set(dataset[boundary_variable].dims)
    bounded = bounded and across.scale != "category" and across.values.size > 1
    row_height = _ROW_HEIGHT * up.values.size + 0.25 if up.scale == "category" else 0.0
    figure, axes, (_, columns) = panel_figure(panels, row_height or (2.1, 1.5, 1.3)[min(len(panels), 3) - 1], _MARGIN)
    drawn = [bounded_summary(part) for part in summaries]
    medians = np.concatenate([part["median"].to_numpy().ravel() for part in drawn])
    scale = colour_scale(variable, medians)
    marks, vertices = [], []
    mesh = None
    for own, panel, summary in zip(axes, panels, drawn, strict=True):
        median = np.ma.masked_invalid(summary["median"].to_numpy())
        if isinstance(scale.norm, LogNorm):
            # Zero is not on a logarithmic scale and would be left blank. It gets the colour of the lower end.
            median = np.ma.masked_invalid(np.maximum(summary["median"].to_numpy(), scale.low))
        mesh = own.pcolormesh(across.edges, up.edges, median, cmap=scale.colours, norm=scale.norm)
        own.grid(False)
        marks += mark_cells(own, summary, across, up)
        if bounded:
            vertices.append(draw_boundary(own, panel.data, boundary_variable, thresholds, across, up))
        across.apply(own, "x", panel_width(columns))
        up.apply(own, "y", row_height or 1.0)
    assert mesh is not None
    described = dataset[variable]
    below = bool(np.any(medians[np.isfinite(medians)] < scale.low))
    extend = "min" if below else "neither"
    bar = figure.colorbar(mesh, ax=axes, location="top", aspect=35, pad=0.03 if over else 0.06, extend=extend)
    bar.set_label(textwrap.fill(axis_label(described), 52))
    if isinstance(scale.norm, LogNorm):
        log_ticks(bar.ax.xaxis, scale.low, scale.high)
    figure.supxlabel(across.label, fontsize=8)
    label_rows(axes, columns, up.label)
    tables = {"": with_panel(summaries, over, panels)}
    lines = []
    if bounded:
        found = [
            threshold for threshold in thresholds if any(np.any(part["threshold"] == threshold) for part in vertices)
        ]
        lines = boundary_handles(title(boundary_variable), thresholds, found)
        if found and dataset.sizes.get("seed", 1) > 1:
            lines.append(line_handle("-", "each seed" if up.scale != "category" else "range of the seeds"))
        tables["boundary"] = with_panel(vertices, over, panels, dim="vertex")
    legend_on_top(
        figure, [*lines, *mark_handles(marks, _meaning_of_infinite(variable), meaning_of_undefined(variable))]
    )
    return DrawnFigure(figure, tables)


def _ordered(summary: xr.Dataset, x: Placing, y: Placing) -> xr.Dataset:
    numeric = [p.name for p in (x, y) if axis_scale(p.values) != "category"]
    return summary.sortby(numeric).transpose(y.name, x.name, ...)


def _meaning_of_infinite(variable: str) -> str:
    return "not reached" if variable.startswith("time_to_") else "infinite"
