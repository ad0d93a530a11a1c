"""Hatches for cells without a value. Each reason has its own hatch, so that no cell is left blank."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from ._placing import Placing


class Mark(NamedTuple):
    """The hatch and the background of one reason, and its name in the legend."""

    hatch: str
    face: str
    label: str


_MARKS = {
    "failed": Mark("//////", "white", "failed"),
    "missing": Mark("....", "white", "not computed"),
    "undefined": Mark("xxxx", "white", "no value"),
    "infinite": Mark("----", "0.85", "infinite"),
}
_SOME_FAILED = Mark("//////", "none", "some seeds failed")
_SOME_MISSING = Mark("....", "none", "some seeds not computed")
_HATCH_COLOUR = "0.35"


def mark_cells(axes: Axes, summary: xr.Dataset, x: Placing, y: Placing) -> list[Mark]:
    """Hatch the cells of a heat map that have no value, and more lightly those in which only some seeds have one.

    **Arguments:**

    - `axes`: the panel.
    - `summary`: the summary over (y, x) from `summarise_seeds`, in the order of the placings.
    - `x`, `y`: where the cells lie.

    **Returns:** the marks used.
    """
    used = []
    states = summary["state"].to_numpy()
    some_failed, some_missing = (summary[name].to_numpy() > 0 for name in ("num_failed", "num_missing"))
    for row, column in np.ndindex(*states.shape):
        mark = _MARKS.get(str(states[row, column]))
        if mark is None and some_failed[row, column]:
            mark = _SOME_FAILED
        elif mark is None and some_missing[row, column]:
            mark = _SOME_MISSING
        if mark is not None:
            add_mark(axes, mark, x.edges[column : column + 2], y.edges[row : row + 2])
            used.append(mark)
    return used


def state_mark(state: str) -> Mark:
    """The mark of a state of `cell_states`, or of a label of `label_regimes`, that stands for a cell without a value."""
    return _MARKS[state]


def add_mark(axes: Axes, mark: Mark, horizontal: np.ndarray, vertical: np.ndarray) -> None:
    """Hatch a rectangle between two horizontal and two vertical edges, in the coordinates of the data."""
    corner = (float(horizontal[0]), float(vertical[0]))
    size = (float(horizontal[1] - horizontal[0]), float(vertical[1] - vertical[0]))
    axes.add_patch(
        Rectangle(
            corner, *size, facecolor=mark.face, edgecolor=_HATCH_COLOUR, hatch=mark.hatch, linewidth=0.0, zorder=1.5
        )
    )


def meaning_of_undefined(variable: str) -> str:
    """The legend's text for a cell whose run ended without a number."""
    return "no value (here or in the reference)" if variable.endswith("_ratio") else _MARKS["undefined"].label


def mark_handles(marks: list[Mark], infinite: str = "infinite", undefined: str = "no value") -> list[Patch]:
    """Legend entries for the marks, each once.

    **Arguments:**

    - `marks`: the marks that were used.
    - `infinite`, `undefined`: the texts for an infinite and for a missing number.
    """
    meanings = {_MARKS["infinite"]: infinite, _MARKS["undefined"]: undefined}
    return [
        Patch(
            facecolor=mark.face,
            edgecolor=_HATCH_COLOUR,
            hatch=mark.hatch,
            linewidth=0.3,
            label=meanings.get(mark, mark.label),
        )
        for mark in dict.fromkeys(marks)
    ]
