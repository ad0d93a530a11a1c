"""Quantities along the runs of a sweep, with bands of the seeds."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ._colours import log_range
from ._drawable import bounded, drawable, with_drawable_axes
from ._drawn import DrawnFigure
from ._panels import label_rows, panel_figure, panels_of, require_axes, with_panel
from ._placing import value_text
from ._style import (
    FLOW_TIME_LABEL,
    LOWEST,
    axis_label,
    flow_handles,
    legend_on_top,
    lowest_handle,
    mark_lowest,
    style_of,
    styled,
)

_TIME = "flow_time"
_PANEL_HEIGHTS = (2.0, 1.5, 1.3)
_MARGIN = 0.5
_NUM_POINTS = 200
_BAND = 0.18


@styled
def curves_figure(curves: xr.Dataset, variable: str, *, lines: str = "flow", over: str | None = None) -> DrawnFigure:
    """A quantity against flow time for each flow of a sweep: all seeds, their median and a band over their range.

    The thin lines are the runs as saved. Median and band are computed at common times, by interpolation on the figure's scales.
    They end where the first seed ends, because beyond that they would describe fewer runs. For a validation or test loss a star
    is where the curve (with several seeds their median) is lowest. There is a panel for each value of
    `over`, and all panels share their scales.

    **Arguments:**

    - `curves`: as `gnflow.sweeps.load_curves` returns it, with `flow_time` and `variable` over "save".
    - `variable`: the quantity.
    - `lines`: the axis whose values have different colours.
    - `over`: the axis of the panels.

    **Returns:** the figure and its tables: the runs, and "median" with `median`, `lower`, `upper` at the common times.

    **Raises:** `ConfigError` for axes or variables that the data set does not have, or if the variable varies along another
    axis.
    """
    flat = with_drawable_axes(curves[[_TIME, variable]] if variable in curves else curves, (lines, over))
    require_axes(flat, variable, lines, over, "save")
    panels = panels_of(flat, over, (lines, "save"))
    figure, axes, (_, columns) = panel_figure(panels, _PANEL_HEIGHTS[min(len(panels), 3) - 1], _MARGIN)
    logarithmic = log_range(variable, bounded(flat[variable].to_numpy())) is not None
    names = [value_text(value) for value in flat[lines].to_numpy().tolist()]
    runs, medians = [], []
    for own, panel in zip(axes, panels, strict=True):
        own.set_xscale("log")
        if logarithmic:
            own.set_yscale("log")
        data = panel.data if "seed" in panel.data.dims else panel.data.expand_dims(seed=[0])
        data = data.transpose(lines, "seed", "save", ...)
        parts = [_draw(own, data.isel({lines: index}), variable, index, logarithmic) for index in range(len(names))]
        medians.append(xr.concat(parts, dim=lines).assign_coords({lines: data[lines].to_numpy()}))
        runs.append(data)
    figure.supxlabel(FLOW_TIME_LABEL, fontsize=8)
    label_rows(axes, columns, axis_label(curves[variable]))
    count = flat.sizes.get("seed", 1)
    band: list[Line2D | Patch] = [
        Line2D([], [], color="0.35", linewidth=0.5, alpha=0.6, label="each seed"),
        Patch(color="0.35", alpha=_BAND + 0.1, linewidth=0, label=f"median, range of {count} seeds"),
    ]
    notes = band if count > 1 else []
    notes += [lowest_handle(LOWEST[variable])] if variable in LOWEST else []
    legend_on_top(figure, flow_handles(names), notes)
    return DrawnFigure(figure, {"": with_panel(runs, over, panels), "median": with_panel(medians, over, panels)})


def _draw(axes: Axes, data: xr.Dataset, variable: str, index: int, logarithmic: bool) -> xr.Dataset:
    style = style_of(index)
    runs = []
    for time, values in zip(data[_TIME].to_numpy(), data[variable].to_numpy(), strict=True):
        time, values = drawable(time, "log"), drawable(values, "log" if logarithmic else "linear")
        kept = np.isfinite(time) & np.isfinite(values)
        if not np.any(kept):
            continue
        runs.append((time[kept], values[kept]))
        alone = data.sizes["seed"] == 1
        axes.plot(*runs[-1], color=style.color, linewidth=1.2 if alone else 0.5, alpha=1.0 if alone else 0.6)
    common = _at_common_times(runs, logarithmic)
    if len(runs) > 1:
        axes.fill_between(common["time"], common["lower"], common["upper"], color=style.color, alpha=_BAND, linewidth=0)
    if data.sizes["seed"] > 1 and np.any(np.isfinite(common["median"])):
        axes.plot(common["time"], common["median"], color=style.color, marker=style.marker, markevery=0.24)
    if variable in LOWEST and runs:
        time, losses = (common[name].to_numpy() for name in ("time", "median")) if len(runs) > 1 else runs[0]
        mark_lowest(axes, time, losses, style.color, losses)
    return common


def _at_common_times(runs: list[tuple[np.ndarray, np.ndarray]], logarithmic: bool) -> xr.Dataset:
    """Median and range at times that all runs have passed; nan if there are none."""
    names = ("median", "lower", "upper")
    begin, end = max((t[0] for t, _ in runs), default=1.0), min((t[-1] for t, _ in runs), default=0.0)
    if begin > end:
        return xr.Dataset({name: ("point", np.full(_NUM_POINTS, np.nan)) for name in ("time", *names)})
    # The ends are clipped, because by rounding exp(log(t)) may lie beyond them, where nothing can be interpolated.
    times = np.clip(np.geomspace(begin, end, _NUM_POINTS), begin, end)
    rows = []
    for time, values in runs:
        row = np.interp(np.log(times), np.log(time), np.log(values) if logarithmic else values)
        rows.append(np.exp(row) if logarithmic else row)
    found = (np.median(rows, axis=0), np.min(rows, axis=0), np.max(rows, axis=0))
    return xr.Dataset({"time": ("point", times), **{n: ("point", v) for n, v in zip(names, found, strict=True)}})
