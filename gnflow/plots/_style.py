"""The look that all figures share: a paper's column, colours that every reader can tell apart, honest log axes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .._core import ConfigError, as_path
from ._drawable import are_beyond, bounded, drawable

COLUMN_WIDTH = 3.4  # inches, the column of most two-column journals
_CHARACTERS_IN_A_ROW = 66  # of the legend, in a column
_CHARACTERS_OF_A_LINE = 6  # the room its line and the gap take
_ROWS_WITH_ROOM = 5  # of a legend, for which figures have the height
_HEIGHT_OF_A_LEGEND_ROW = 0.148  # inches
RESOLUTION = 220  # dots per inch

Runs = Mapping[str, xr.Dataset | Sequence[xr.Dataset]]

# Okabe and Ito's palette (jfly.uni-koeln.de/color), the dark colours first; each flow has its marker as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_SETTINGS: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


# A decorator: the settings hold while a figure is built, and nothing global stays changed.
styled = matplotlib.rc_context(_SETTINGS)


class FlowStyle(NamedTuple):
    """How one flow is drawn in every figure."""

    color: str
    marker: str


def style_of(index: int) -> FlowStyle:
    """Colour and marker of the flow number `index`, which repeat together only after seven times seven."""
    return FlowStyle(COLOURS[index % len(COLOURS)], _MARKERS[(index + index // len(COLOURS)) % len(_MARKERS)])


def new_figure(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure one column wide with rows times columns axes, listed row by row.

    **Arguments:** `height`: in inches; `options`: of `Figure.subplots`.
    """
    figure = Figure(figsize=(COLUMN_WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def legend(figure: Figure, *groups: Sequence[Artist], columns: int = 3) -> int:
    """A legend above the axes, where it hides no data; each group of entries begins a row of its own.

    **Arguments:** `columns`: at most so many; fewer where the labels are long. **Returns:** the number of its rows.
    """
    longest = max(len(str(handle.get_label())) for group in groups for handle in group)
    columns = max(1, min(columns, _CHARACTERS_IN_A_ROW // (longest + _CHARACTERS_OF_A_LINE)))
    blank = Line2D([], [], linestyle="", label=" ")
    rows: list[list[Artist]] = []
    for group in groups:
        padded = [*group, *[blank] * (-len(group) % columns)]
        rows += [padded[start : start + columns] for start in range(0, len(padded), columns)]
    # Matplotlib fills a legend column by column.
    handles = [row[column] for column in range(columns) for row in rows]
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=2.2, columnspacing=1.2)
    return len(rows)


def legend_above(figure: Figure, *groups: Sequence[Artist], columns: int = 3) -> None:
    """As `legend`; the figure grows for a long one, which would leave the axes no height."""
    rows = legend(figure, *groups, columns=columns)
    if rows > _ROWS_WITH_ROOM:
        figure.set_figheight(figure.get_figheight() + (rows - _ROWS_WITH_ROOM) * _HEIGHT_OF_A_LEGEND_ROW)


def legend_on_top(figure: Figure, *groups: Sequence[Artist], columns: int = 2) -> None:
    """A legend for which the figure grows, so that the axes keep their height however long it is."""
    filled = [group for group in groups if group]
    if filled:
        rows = legend(figure, *filled, columns=columns)
        figure.set_figheight(figure.get_figheight() + rows * _HEIGHT_OF_A_LEGEND_ROW)


def title(name: str) -> str:
    """A name of the specification as text."""
    return name.replace("_", " ")


def flow_handles(names: Sequence[str]) -> list[Line2D]:
    """Legend entries for flows, in their looks."""
    return [
        Line2D([], [], color=style_of(index).color, marker=style_of(index).marker, label=title(name))
        for index, name in enumerate(names)
    ]


def line_handle(linestyle: Any, label: str) -> Line2D:
    """A legend entry for what a line style means."""
    return Line2D([], [], color="0.35", linestyle=linestyle, label=label)


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as PNG; folders are made. **Returns:** the path. **Raises:** `ConfigError` for what is no path."""
    path = as_path(path, "path", ConfigError)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=RESOLUTION)
    return path


def datasets_of(runs: xr.Dataset | Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """The data sets of one flow, one for each seed."""
    return [runs] if isinstance(runs, xr.Dataset) else list(runs)


def flow_time(data: xr.Dataset) -> np.ndarray:
    """Flow time of each row, whether the run was integrated or stepped; steps, where an optimiser took them."""
    return _clock(data).to_numpy()


def _clock(data: xr.Dataset) -> xr.DataArray:
    return data["time" if "time" in data.coords else "flow_time"]


def time_label(runs: Runs) -> str:
    """What to write at the axis of `flow_time`."""
    units = {_clock(data).attrs.get("units") for several in runs.values() for data in datasets_of(several)}
    if "steps" not in units:
        return FLOW_TIME_LABEL
    return "steps" if units == {"steps"} else "flow time (in each flow's own unit) or steps"


def relative_time(data: xr.Dataset) -> np.ndarray:
    """Flow time over the flow time at the end of the run."""
    time = bounded(flow_time(data))
    end = time[-1] if time.size and 0 < time[-1] < np.inf else 1.0
    return time / end


def axis_label(variable: xr.DataArray) -> str:
    """long_name [units] of a variable, without units where it is dimensionless."""
    name = str(variable.attrs.get("long_name", variable.name))
    units = str(variable.attrs.get("units", "1")).replace("^2", "\N{SUPERSCRIPT TWO}")
    return name if units in ("1", name) else f"{name} [{units}]"


def first_with(runs: Runs, name: str) -> xr.DataArray | None:
    """The variable `name` of the first run that has it, for its description."""
    found = (data[name] for several in runs.values() for data in datasets_of(several) if name in data)
    return next(found, None)


def draw_lines(
    axes: Axes, runs: Runs, name: str, linestyle: Any = "-", time_of: Callable[[xr.Dataset], np.ndarray] = flow_time
) -> bool:
    """`name` against flow time for every run that has it; seeds of one flow share its look.

    On a logarithmic axis (set it before) what is zero or less leaves a gap: the state at time 0, a loss of exactly 0. So does,
    on any, what is no number, infinite or beyond 1e100.

    **Arguments:** `time_of`: the times to draw a run at.

    **Returns:** whether anything of the latter kind was left out.
    """
    left_out = False
    for index, several in enumerate(runs.values()):
        drawn = [data for data in datasets_of(several) if name in data]
        for data in drawn:
            time = drawable(time_of(data), axes.get_xscale())
            values = drawable(data[name].to_numpy(), axes.get_yscale())
            left_out = left_out or are_beyond(time_of(data)) or are_beyond(data[name].to_numpy())
            if not np.any(np.isfinite(time) & np.isfinite(values)):
                continue
            axes.plot(
                time,
                values,
                color=style_of(index).color,
                linestyle=linestyle,
                marker=style_of(index).marker,
                markevery=0.18,
                alpha=1.0 if len(drawn) == 1 else 0.6,
            )
    return left_out


FLOW_TIME_LABEL = "flow time (in each flow's own unit)"
