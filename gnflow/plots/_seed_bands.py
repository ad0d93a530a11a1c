"""Lines over an axis of a sweep: the median over the seeds, with a band for their spread."""

import textwrap
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ._colours import log_range, log_ticks
from ._drawable import bounded_summary, summary_of, with_drawable_axes
from ._drawn import DrawnFigure
from ._marks import meaning_of_undefined
from ._panels import Panel, grid_of, label_rows, panel_width, panels_of, require_axes, with_panel
from ._placing import Placing, value_title
from ._style import axis_label, flow_handles, legend_on_top, new_figure, style_of, styled

_PANEL_HEIGHT = 1.35
_MARGIN = 0.45
_BAND = 0.18  # opacity
# Heights of the marks for points without a value, as shares of the panel's height.
_FIRST_MARK, _NEXT_MARK = 0.045, 0.06
_ABSENT = {"failed": "x", "missing": "|", "undefined": "_", "infinite": "^", "below": "v"}
_MEANING = {
    "failed": "failed",
    "missing": "not computed",
    "infinite": "infinite",
    "below": "below the axis",
}


@styled
def seed_band_figure(
    dataset: xr.Dataset,
    variables: Sequence[str] | str,
    *,
    x: str,
    lines: str = "flow",
    over: str | None = None,
    interval: float = 1.0,
) -> DrawnFigure:
    """Quantities along one axis of a sweep: for each flow a line through the medians over the seeds, with a band.

    There is a row of panels for each variable and a column for each value of `over`. The panels of a row share their scale. A
    point without a value interrupts its line. It has a mark at the bottom of the panel that shows the reason: failed, not
    computed, no value, infinite, or below the axis (zero, or more than ten decades below the largest). A point is hollow if
    some of the seeds failed or have not been computed.

    **Arguments:**

    - `dataset`: a sweep, as `gnflow.load` returns it, or its `order_parameters`.
    - `variables`: one or several quantities.
    - `x`, `over`: axes of the data set.
    - `lines`: the axis whose values have different colours.
    - `interval`: the central share of the seeds that the band encloses at least; 1.0 for their range.

    **Returns:** the figure and a table for each variable, the summary over the seeds.

    **Raises:** `ConfigError` for axes or variables that the data set does not have, or if a variable varies along another axis.
    """
    variables = [variables] if isinstance(variables, str) else list(variables)
    for variable in variables:
        require_axes(dataset, variable, x, lines, over)
    dataset = with_drawable_axes(dataset, (x, lines, over))
    panels = panels_of(dataset, over, (x, lines))
    placing = Placing.of(dataset, x)
    rows, columns = (len(variables), len(panels)) if len(variables) > 1 else grid_of(len(panels))
    figure, axes = new_figure(
        rows, columns, height=_MARGIN + rows * _PANEL_HEIGHT, sharex=True, sharey="row" if len(variables) > 1 else True
    )
    names = [value_title(lines, value) for value in dataset[lines].to_numpy().tolist()]
    tables, absent, some = {}, {}, {}
    for row, variable in enumerate(variables):
        parts = [_summary(panel, variable, x, lines, placing, interval) for panel in panels]
        shown = [bounded_summary(part) for part in parts]
        drawn = [part[name].to_numpy().ravel() for part in shown for name in ("median", "lower", "upper")]
        ends = log_range(variable, np.concatenate(drawn))
        for own, panel, part in zip(axes[row * columns :], panels, shown, strict=False):
            if ends is not None:
                own.set_yscale("log")
            for index in range(part.sizes[lines]):
                floor = None if ends is None else ends[0]
                for state in _draw(own, part.isel({lines: index}), placing, index, floor):
                    absent[_meaning(state, variable)] = _ABSENT[state]
            for reason in ("failed", "missing"):
                if np.any((part["num_values"] > 0) & (part[f"num_{reason}"] > 0)):
                    some[_MEANING[reason]] = None
            if row == 0 or len(variables) == 1:
                own.set_title(panel.title)
            placing.apply(own, "x", panel_width(columns))
        if ends is not None:
            log_ticks(axes[row * columns].yaxis, *axes[row * columns].get_ylim())
        wrapped = textwrap.fill(axis_label(dataset[variable]), 22)
        if len(variables) > 1:
            axes[row * columns].set_ylabel(wrapped)
        else:
            label_rows(axes, columns, axis_label(dataset[variable]))
        tables[variable if len(variables) > 1 else ""] = with_panel(parts, over, panels)
    for own in axes[len(panels) * len(variables) :]:
        own.set_axis_off()
    for own in axes[: len(panels) * len(variables)][-columns:]:
        own.xaxis.set_tick_params(labelbottom=True)
    figure.supxlabel(placing.label, fontsize=8)
    legend_on_top(figure, flow_handles(names), _legend_of_marks(dataset, interval, absent, some))
    return DrawnFigure(figure, tables)


def _summary(panel: Panel, variable: str, x: str, lines: str, placing: Placing, interval: float) -> xr.Dataset:
    summary = summary_of(panel.data, variable, interval)
    return (summary if placing.scale == "category" else summary.sortby(x)).transpose(lines, x, ...)


def _draw(axes: Axes, line: xr.Dataset, placing: Placing, index: int, floor: float | None) -> list[str]:
    """Draw one line.

    **Arguments:**

    - `axes`: the panel.
    - `line`: the summary over the seeds along the line.
    - `placing`: where its points lie.
    - `index`: the number of the line, for its colour.
    - `floor`: the smallest value that a logarithmic axis shows, None for a linear one.

    **Returns:** the reasons of absent points.
    """
    style = style_of(index)
    median, lower, upper = (line[name].to_numpy() for name in ("median", "lower", "upper"))
    shown = np.isfinite(median) if floor is None else np.isfinite(median) & (median >= floor)
    lower = lower if floor is None else np.maximum(lower, floor)
    where = placing.centres
    middle = np.where(shown, median, np.nan)
    axes.plot(where, middle, color=style.color, marker="")
    axes.fill_between(where, lower, upper, where=shown, color=style.color, alpha=_BAND, linewidth=0)
    whole = (line["num_failed"] + line["num_missing"]).to_numpy() == 0
    for condition, face in ((whole, style.color), (~whole, "white")):
        axes.plot(
            where[condition],
            middle[condition],
            linestyle="",
            marker=style.marker,
            color=style.color,
            markerfacecolor=face,
        )
    absent = []
    states = np.where(np.isfinite(median) & ~shown, "below", line["state"].to_numpy())
    for position, state in zip(where, states, strict=True):
        if state in _ABSENT:
            axes.plot(
                position,
                _FIRST_MARK + _NEXT_MARK * index,
                transform=axes.get_xaxis_transform(),
                marker=_ABSENT[state],
                color=style.color,
                linestyle="",
                markersize=4.5,
                markeredgewidth=1.2,
                clip_on=False,
            )
            absent.append(state)
    return absent


def _meaning(state: str, variable: str) -> str:
    return meaning_of_undefined(variable) if state == "undefined" else _MEANING[state]


def _legend_of_marks(
    dataset: xr.Dataset, interval: float, absent: Mapping[str, str], some: Collection[str]
) -> list[Line2D | Patch]:
    """Legend entries for the band and the marks.

    **Arguments:**

    - `dataset`: the sweep.
    - `interval`: the share of the seeds in the band.
    - `absent`: the markers of points without a value, by their meaning.
    - `some`: the reasons why seeds are left out.
    """
    count = dataset.sizes.get("seed", 1)
    handles: list[Line2D | Patch] = []
    if count > 1:
        share = "range" if interval == 1 else f"central {interval:.0%}"
        handles.append(Patch(color="0.35", alpha=_BAND + 0.1, linewidth=0, label=f"{share} of {count} seeds"))
    if some:
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="o",
                color="0.35",
                markerfacecolor="white",
                label=f"some seeds {' or '.join(some)}",
            )
        )
    for meaning, marker in absent.items():
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker=marker,
                color="0.35",
                markersize=4.5,
                markeredgewidth=1.2,
                label=meaning,
            )
        )
    return handles
