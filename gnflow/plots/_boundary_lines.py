"""The boundary of a regime on a heat map, for the median over the seeds and for each seed."""

from collections.abc import Sequence

import matplotlib.patheffects
import numpy as np
import xarray as xr
from contourpy import contour_generator
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .._core import ConfigError
from ..regimes import boundary
from ._drawable import bounded_variable, summary_of
from ._placing import Placing

LINESTYLES = ((0, (3, 1.5)), "-", (0, (1, 1)), "-.")
_WHITE_ON_BLACK = [matplotlib.patheffects.withStroke(linewidth=2.4, foreground="black")]
_BLACK_ON_WHITE = [matplotlib.patheffects.withStroke(linewidth=1.0, foreground="white", alpha=0.6)]
_MEDIAN = "median"
_FLOOR = 1e-12  # relative to the threshold: a kernel distance of exactly zero has no logarithm


def require_thresholds(thresholds: Sequence[float]) -> None:
    """Check that there is a line style for each threshold. **Raises:** `ConfigError`."""
    if len(thresholds) > len(LINESTYLES):
        raise ConfigError(f"thresholds = {list(thresholds)!r}; a figure can tell apart at most {len(LINESTYLES)}.")


def draw_boundary(
    axes: Axes, data: xr.Dataset, variable: str, thresholds: Sequence[float], x: Placing, y: Placing
) -> xr.Dataset:
    """Draw where `variable` equals each threshold, bold for the median over the seeds and thin for each seed.

    Between the centres of the cells the logarithm of the variable is interpolated on the scales of the axes. On a vertical axis
    of names there is nothing between two rows. Each row then has an upright line at the crossing of the median, and a bar over
    the range of the seeds.

    **Returns:** the vertices drawn, along "vertex": `x`, `y`, `threshold`, `of` ("median", or the seed) and `line`, the number
    of the connected line that they belong to.
    """
    data = bounded_variable(data, variable)
    rows: list[tuple[float, float, float, str, int]] = []
    for threshold, style in zip(thresholds, LINESTYLES, strict=False):
        if y.scale == "category":
            lines = _uprights(data, variable, threshold, x, y)
        else:
            lines = _contours(data, variable, threshold, x, y)
        for name, (horizontal, vertical) in lines:
            bold = name == _MEDIAN
            axes.plot(
                horizontal,
                vertical,
                color="white" if bold else "black",
                linewidth=1.3 if bold else 0.5,
                linestyle=style if bold or y.scale != "category" else "-",
                alpha=1.0 if bold else 0.7,
                path_effects=_WHITE_ON_BLACK if bold else _BLACK_ON_WHITE,
                zorder=3 if bold else 2.5,
                label="_" + name,
            )
            number = rows[-1][4] + 1 if rows else 0
            rows += [
                (float(h), float(v), float(threshold), name, number) for h, v in zip(horizontal, vertical, strict=True)
            ]
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], [], []]
    names = ("x", "y", "threshold", "of", "line")
    kinds = (float, float, float, object, int)
    return xr.Dataset(
        {
            name: ("vertex", np.asarray(column, dtype=kind))
            for name, column, kind in zip(names, columns, kinds, strict=True)
        }
    )


def boundary_handles(words: str, thresholds: Sequence[float], found: Sequence[float]) -> list[Artist]:
    """Legend entries for the thresholds that were found."""
    return [
        Line2D(
            [],
            [],
            color="white",
            linewidth=1.3,
            linestyle=style,
            path_effects=_WHITE_ON_BLACK,
            label=f"{words} = {t:g}",
        )
        for t, style in zip(thresholds, LINESTYLES, strict=False)
        if t in found
    ]


_Line = tuple[str, tuple[np.ndarray, np.ndarray]]


def _contours(data: xr.Dataset, variable: str, threshold: float, x: Placing, y: Placing) -> list[_Line]:
    fields = {_MEDIAN: summary_of(data, variable)["median"]}
    if data[variable].sizes.get("seed", 1) > 1:
        for index, seed in enumerate(data["seed"].to_numpy().tolist()):
            fields |= {str(seed): summary_of(data.isel(seed=[index]), variable)["median"]}
    drawn: list[_Line] = []
    # Thin lines come first, so that the median lies above them.
    for name, field in reversed(fields.items()):
        values = field.sortby([x.name, y.name]).transpose(y.name, x.name).to_numpy()
        if min(values.shape) < 2:
            continue
        if threshold > 0:
            values, level = np.log(np.maximum(values, _FLOOR * threshold)), np.log(threshold)
        else:
            level = threshold
        horizontal, vertical = (np.log(p.centres) if p.scale == "log" else p.centres for p in (x, y))
        generator = contour_generator(horizontal, vertical, np.ma.masked_invalid(values))
        for segment in generator.lines(float(level)):
            points = np.asarray(segment)
            h, v = (np.exp(c) if p.scale == "log" else c for p, c in zip((x, y), points.T, strict=True))
            drawn.append((name, (h, v)))
    return drawn


def _uprights(data: xr.Dataset, variable: str, threshold: float, x: Placing, y: Placing) -> list[_Line]:
    found = boundary(data, variable, threshold, along=x.name)
    drawn: list[_Line] = []
    # Intervals that reach beyond the axis are drawn up to its edge.
    ends = x.edges[0], x.edges[-1]
    for row, value in enumerate(y.values):
        own = found.sel({y.name: value})
        low, high = (float(np.clip(own[name], *ends)) for name in ("lower", "upper"))
        centre = y.centres[row]
        if low < high:
            drawn.append(("range", (np.asarray([low, high]), np.asarray([centre, centre]))))
        if np.isfinite(own["median"]):
            middle = float(own["median"])
            drawn.append((_MEDIAN, (np.asarray([middle, middle]), y.edges[row : row + 2])))
    return drawn
