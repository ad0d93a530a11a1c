"""The style that all figures share: the width of a paper's column, colours that every reader can tell apart, log axes."""

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
from ..simulate import lowest
from ._drawable import are_beyond, bounded, drawable

COLUMN_WIDTH = 3.4  # inches, the column of most two-column journals
_CHARACTERS_IN_A_ROW = 66  # characters that fit into a row of the legend
_CHARACTERS_OF_A_LINE = 6  # the width of an entry's line and gap, in characters
_ROWS_WITH_ROOM = 5  # rows of a legend that fit into a figure's usual height
_HEIGHT_OF_A_LEGEND_ROW = 0.148  # inches
RESOLUTION = 220  # dots per inch

Runs = Mapping[str, xr.Dataset | Sequence[xr.Dataset]]

# The palette of Okabe and Ito (jfly.uni-koeln.de/color), with the dark colours first. Each flow also has its own marker.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Larger than the markers of flows, with a white edge, so that it stands out from them.
_STAR: dict[str, Any] = {
    "marker": "*",
    "markersize": 9,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "zorder": 5,
}
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


# A decorator: the settings hold while a figure is built, and global settings are restored afterwards.
styled = matplotlib.rc_context(_SETTINGS)


class FlowStyle(NamedTuple):
    """How one flow is drawn in every figure."""

    color: str
    marker: str


def style_of(index: int) -> FlowStyle:
    """Colour and marker of the flow number `index`. The pair repeats only after 49 flows."""
    return FlowStyle(COLOURS[index % len(COLOURS)], _MARKERS[(index + index // len(COLOURS)) % len(_MARKERS)])


def new_figure(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the width of a paper's column, and its axes row by row.

    **Arguments:**

    - `rows`, `columns`: the numbers of rows and columns of axes.
    - `height`: the height of the figure in inches.
    - `options`: further arguments of `Figure.subplots`.
    """
    figure = Figure(figsize=(COLUMN_WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def legend(figure: Figure, *groups: Sequence[Artist], columns: int = 3) -> int:
    """Draw a legend above the axes, where it hides no data. Each group of entries begins a new row.

    **Arguments:**

    - `figure`: the figure.
    - `groups`: groups of entries.
    - `columns`: the largest number of columns. There are fewer if labels are long.

    **Returns:** the number of rows.
    """
    longest = max(len(str(handle.get_label())) for group in groups for handle in group)
    columns = max(1, min(columns, _CHARACTERS_IN_A_ROW // (longest + _CHARACTERS_OF_A_LINE)))
    blank = Line2D([], [], linestyle="", label=" ")
    rows: list[list[Artist]] = []
    for group in groups:
        padded = [*group, *[blank] * (-len(group) % columns)]
        rows += [padded[start : start + columns] for start in range(0, len(padded), columns)]
    # Matplotlib fills a legend column by column, and the entries are listed row by row.
    handles = [row[column] for column in range(columns) for row in rows]
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=2.2, columnspacing=1.2)
    return len(rows)


def legend_above(figure: Figure, *groups: Sequence[Artist], columns: int = 3) -> None:
    """Draw a `legend`. The figure grows for a long one, which would otherwise leave no height for the axes."""
    rows = legend(figure, *groups, columns=columns)
    if rows > _ROWS_WITH_ROOM:
        figure.set_figheight(figure.get_figheight() + (rows - _ROWS_WITH_ROOM) * _HEIGHT_OF_A_LEGEND_ROW)


def legend_on_top(figure: Figure, *groups: Sequence[Artist], columns: int = 2) -> None:
    """Draw a `legend` and let the figure grow by its height, so that the axes keep theirs."""
    filled = [group for group in groups if group]
    if filled:
        rows = legend(figure, *filled, columns=columns)
        figure.set_figheight(figure.get_figheight() + rows * _HEIGHT_OF_A_LEGEND_ROW)


def title(name: str) -> str:
    """A name from the specification as text for a figure."""
    return name.replace("_", " ")


def flow_handles(names: Sequence[str]) -> list[Line2D]:
    """Legend entries for flows, with their colours and markers."""
    return [
        Line2D([], [], color=style_of(index).color, marker=style_of(index).marker, label=title(name))
        for index, name in enumerate(names)
    ]


def line_handle(linestyle: Any, label: str) -> Line2D:
    """A legend entry that explains a line style."""
    return Line2D([], [], color="0.35", linestyle=linestyle, label=label)


LOWEST = {
    "validation_loss": "lowest validation loss",
    "test_loss": "lowest, selected on test",
}


def mark_lowest(axes: Axes, time: np.ndarray, losses: np.ndarray, color: str, selected_by: np.ndarray) -> None:
    """Put a star on a curve of losses where `selected_by`, of the same states, is lowest. Nothing is drawn if there is none."""
    row = lowest(selected_by)
    if row is not None and len(losses) > 1 and np.isfinite(time[row]) and np.isfinite(losses[row]):
        axes.plot(time[row], losses[row], linestyle="", **_STAR, color=color)


def lowest_handle(label: str) -> Line2D:
    """A legend entry that explains the star."""
    return Line2D([], [], linestyle="", **_STAR, color="0.35", label=label)


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as PNG. Missing folders are made.

    **Returns:** the path.

    **Raises:** `ConfigError` if `path` is not a path.
    """
    path = as_path(path, "path", ConfigError)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=RESOLUTION)
    return path


def datasets_of(runs: xr.Dataset | Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """The data sets of one flow, one for each seed."""
    return [runs] if isinstance(runs, xr.Dataset) else list(runs)


def flow_time(data: xr.Dataset) -> np.ndarray:
    """The flow time of each row, also for a run in steps. For a run by an optimiser it is the number of steps."""
    return _clock(data).to_numpy()


def _clock(data: xr.Dataset) -> xr.DataArray:
    return data["time" if "time" in data.coords else "flow_time"]


def time_label(runs: Runs) -> str:
    """The label for an axis of `flow_time`."""
    units = {_clock(data).attrs.get("units") for several in runs.values() for data in datasets_of(several)}
    if "steps" not in units:
        return FLOW_TIME_LABEL
    return "steps" if units == {"steps"} else "flow time (in each flow's own unit) or steps"


def relative_time(data: xr.Dataset) -> np.ndarray:
    """Flow time divided by the flow time at the end of the run."""
    time = bounded(flow_time(data))
    end = time[-1] if time.size and 0 < time[-1] < np.inf else 1.0
    return time / end


def axis_label(variable: xr.DataArray) -> str:
    """The label of a variable, "long_name [units]", without units if it is dimensionless."""
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
    """Draw `name` against flow time for every run that has it. The seeds of a flow share its colour and marker.

    On a logarithmic axis (set its scale before) numbers that are not positive leave a gap: the state at time 0, a loss of
    exactly 0. On any axis nan, infinite numbers and those beyond 1e100 leave a gap.

    **Arguments:**

    - `axes`: the panel.
    - `runs`: by the name of the flow a data set, or one for each seed.
    - `name`: the variable.
    - `linestyle`: the line style.
    - `time_of`: returns the times at which a run is drawn.

    **Returns:** whether any nan, infinite or very large number was left out.
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
