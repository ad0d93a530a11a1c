"""The position of a regime's boundary along one axis, against another axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ..regimes import boundary
from ._boundary_lines import LINESTYLES, require_thresholds
from ._drawable import bounded_variable, with_drawable_axes
from ._drawn import DrawnFigure
from ._panels import require_axes
from ._placing import Placing, value_text
from ._style import flow_handles, legend_on_top, line_handle, new_figure, style_of, styled, title

_HEIGHT = 2.1
_OUTSIDE = {"below the range": ("v", 0.03), "above the range": ("^", 0.97)}
_SHIFT = 0.02  # of the axis, between lines that may coincide


@styled
def boundary_figure(
    dataset: xr.Dataset,
    *,
    along: str,
    x: str,
    lines: str = "flow",
    variable: str = "kernel_distance",
    thresholds: Sequence[float] = (0.1, 0.5),
    interval: float = 1.0,
) -> DrawnFigure:
    """The position along one axis at which `variable` crosses each threshold, against another axis.

    Points are medians over the seeds, and bars their interval. A triangle at the edge of the figure marks a median below or
    above the computed values. A bar that reaches the edge ends outside of them.

    **Arguments:**

    - `dataset`: a sweep, as `gnflow.load` returns it.
    - `along`: the axis of the position.
    - `x`: the horizontal axis.
    - `lines`: the axis whose values have different colours.
    - `variable`, `interval`: as for `gnflow.regimes.boundary`.
    - `thresholds`: at most four.

    **Returns:** the figure and its tables: the medians and counts, and "seeds", the crossings of each seed.

    **Raises:** the errors of `boundary`; `ConfigError` if the variable varies along another axis, or for more thresholds.
    """
    require_thresholds(thresholds)
    require_axes(dataset, variable, along, x, lines)
    dataset = with_drawable_axes(dataset, (along, x, lines))
    single = [dim for dim in dataset[variable].dims if dim not in (along, x, lines, "seed")]
    data = bounded_variable(dataset.isel(dict.fromkeys(single, 0), drop=True), variable)
    found = [boundary(data, variable, threshold, along=along, interval=interval) for threshold in thresholds]
    table = xr.concat(found, dim="threshold", combine_attrs="drop_conflicts").assign_coords(threshold=list(thresholds))
    across, height = Placing.of(data, x), Placing.of(data, along)
    figure, (axes,) = new_figure(1, 1, height=_HEIGHT)
    across.apply(axes, "x", 2.6)
    height.apply(axes, "y", 1.6)
    values = data[lines].to_numpy().tolist()
    for crossings, style in zip(found, LINESTYLES, strict=False):
        for index in range(len(values)):
            _draw(
                axes,
                crossings.isel({lines: index}),
                across,
                height,
                (index - (len(values) - 1) / 2) * _SHIFT,
                index,
                style,
            )
    axes.set_xlabel(across.label)
    axes.set_ylabel(height.label)
    legend_on_top(
        figure,
        flow_handles([value_text(value) for value in values]),
        [line_handle(style, f"{title(variable)} = {t:g}") for t, style in zip(thresholds, LINESTYLES, strict=False)],
    )
    each = [name for name in table.data_vars if "seed" in table[name].dims]
    return DrawnFigure(figure, {"": table.drop_dims("seed") if each else table, "seeds": table[each]})


def _draw(
    axes: Axes, found: xr.Dataset, across: Placing, height: Placing, shift: float, index: int, linestyle: Any
) -> None:
    style = style_of(index)
    ordered = found if across.scale == "category" else found.sortby(across.name)
    place = np.log(across.centres) if across.scale == "log" else across.centres
    place = place + shift * ((place.max() - place.min()) or 1.0)
    where = np.exp(place) if across.scale == "log" else place
    median = ordered["median"].to_numpy()
    axes.plot(
        where,
        np.where(np.isfinite(median), median, np.nan),
        color=style.color,
        marker=style.marker,
        linestyle=linestyle,
        markersize=3,
    )
    # Intervals that reach beyond the computed values are drawn up to the edge.
    low, high = (np.clip(ordered[name].to_numpy(), height.edges[0], height.edges[-1]) for name in ("lower", "upper"))
    spread = low < high
    axes.vlines(where[spread], low[spread], high[spread], colors=style.color, linewidth=0.8)
    for position, status in zip(where, ordered["median_status"].to_numpy(), strict=True):
        if status in _OUTSIDE:
            marker, edge = _OUTSIDE[status]
            axes.plot(
                position,
                edge,
                transform=axes.get_xaxis_transform(),
                marker=marker,
                color=style.color,
                markersize=5,
                linestyle="",
            )
