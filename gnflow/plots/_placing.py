"""Where the values of a sweep's axis lie in a figure: numbers on their scale, names side by side."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ..regimes import axis_scale
from ._style import title

_LABELS = {
    "tau0": r"initialisation scale $\tau_0$",
    "init_scale": r"initialisation scale $\tau_0$",
    "width": "width $M$",
    "n_train": "samples $N$",
    "step_size": r"step size $\lambda$",
    "power": "spectral power $s$",
    "seed": "seed",
    "flow": "flow",
}
_SYMBOLS = {
    "tau0": r"$\tau_0$",
    "init_scale": r"$\tau_0$",
    "width": "$M$",
    "n_train": "$N$",
    "step_size": r"$\lambda$",
    "power": "$s$",
}
_WIDTH_OF_A_CHARACTER = 0.062  # inches, in tick labels
_HEIGHT_OF_A_LINE = 0.13


@dataclasses.dataclass(frozen=True)
class Placing:
    """An axis of a sweep as an axis of a figure.

    **Attributes:**

    - `name`: the dimension.
    - `values`: its values (n,) in the order drawn, ascending if they are numbers.
    - `scale`: "log", "linear" or "category".
    - `centres`, `edges`: the centres (n,) and edges (n + 1,) of the cells, in the figure's coordinates.
    - `texts`: the values as text (n,).
    - `label`: the label of the axis, with units.
    """

    name: str
    values: np.ndarray
    scale: Literal["log", "linear", "category"]
    centres: np.ndarray
    edges: np.ndarray
    texts: tuple[str, ...]
    label: str

    @classmethod
    def of(cls, data: xr.Dataset | xr.DataArray, name: str) -> "Placing":
        """The placing of the dimension `name` of `data`, which need not have a coordinate."""
        values = data[name].to_numpy()
        scale = axis_scale(values)
        if scale == "category":
            centres = np.arange(values.size, dtype=float)
            edges = np.arange(values.size + 1) - 0.5
            return cls(
                name, values, scale, centres, edges, tuple(value_text(v) for v in values), axis_title(data, name)
            )
        values = np.sort(values)
        centres = values.astype(float)
        coordinates = np.log(centres) if scale == "log" else centres
        edges = _edges(coordinates)
        edges = np.exp(edges) if scale == "log" else edges
        return cls(name, values, scale, centres, edges, tuple(f"{v:g}" for v in centres), axis_title(data, name))

    def apply(self, axes: Axes, which: Literal["x", "y"], length: float, limits: bool = True) -> None:
        """Set scale, limits and ticks of one axis of the panel.

        Every value has a tick. A tick has a label unless it would overlap another one. The ends of the axis are labelled first,
        then powers of ten.

        **Arguments:**

        - `axes`: the panel.
        - `which`: "x" or "y".
        - `length`: the length of the axis in inches.
        - `limits`: whether the axis ends at the edges of its cells.
        """
        axis = axes.xaxis if which == "x" else axes.yaxis
        if self.scale == "log":
            axes.set_xscale("log") if which == "x" else axes.set_yscale("log")
        if limits:
            first, last = self.edges[0], self.edges[-1]
            # Names are listed from the top.
            first, last = (last, first) if which == "y" and self.scale == "category" else (first, last)
            axes.set_xlim(first, last) if which == "x" else axes.set_ylim(first, last)
        shown = self._labelled(which, length)
        texts = [text if keep else "" for text, keep in zip(self.texts, shown, strict=True)]
        axis.set_ticks(self.centres, labels=texts)
        axes.minorticks_off()

    def _labelled(self, which: str, length: float) -> list[bool]:
        if self.scale == "category":
            return [True] * len(self.texts)
        place = np.log(self.edges) if self.scale == "log" else self.edges
        centres = np.log(self.centres) if self.scale == "log" else self.centres
        inches = (centres - place[0]) / (place[-1] - place[0]) * length
        sizes = [_WIDTH_OF_A_CHARACTER * (len(t) + 0.8) if which == "x" else _HEIGHT_OF_A_LINE for t in self.texts]
        last = len(sizes) - 1
        order = sorted(range(last + 1), key=lambda i: (i not in (0, last), not _is_power_of_ten(self.centres[i]), i))
        kept: list[int] = []
        for i in order:
            if all(abs(inches[i] - inches[k]) >= (sizes[i] + sizes[k]) / 2 for k in kept):
                kept.append(i)
        return [i in kept for i in range(last + 1)]


def axis_title(data: xr.Dataset | xr.DataArray, name: str) -> str:
    """The title of a dimension, with units: the `long_name` of its coordinate, else the field's name for it, else its own."""
    attrs = data[name].attrs
    described = str(attrs.get("long_name", name))
    words = described if described != name else _LABELS.get(name, title(name))
    units = str(attrs.get("units", "1"))
    return words if units in ("", "1", "none") else f"{words} [{units}]"


def value_text(value: Any) -> str:
    """One value of an axis as a label."""
    if isinstance(value, str | bool | np.bool_):
        return title(str(value))
    return f"{value:g}"


def value_title(name: str, value: Any) -> str:
    """The title of a panel: the value, with the dimension's name if it is a number."""
    text = value_text(value)
    return text if isinstance(value, str) else f"{_SYMBOLS.get(name, title(name))} = {text}"


def _edges(centres: np.ndarray) -> np.ndarray:
    if centres.size == 1:
        return np.asarray([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _is_power_of_ten(value: float) -> bool:
    return bool(value > 0 and math.isclose(math.log10(value), round(math.log10(value)), abs_tol=1e-9))
