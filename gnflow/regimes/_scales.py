"""The scale of an axis: logarithmic, linear, or names."""

from typing import Any, Literal

import numpy as np

_LEAST_RATIO = 10.0

AxisScale = Literal["log", "linear", "category"]


def axis_scale(values: Any) -> AxisScale:
    """The scale on which an axis is drawn and interpolated.

    - "category": text, booleans, and numbers that are not finite.
    - "log": positive numbers that span a decade or more and are spaced more evenly on a logarithmic scale than on a linear
      one, such as 0.01, 0.1, 0.5, ..., 100. Two values that are a decade apart are logarithmic.
    - "linear": all other numbers, such as 100, 500, 1000, 1500, 2000.

    **Arguments:** `values`: the values (n,), in any order.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)):
        return "category"
    ordered = np.unique(values.astype(float))
    if ordered.size < 2 or ordered[0] <= 0 or ordered[-1] < _LEAST_RATIO * ordered[0]:
        return "linear"
    return "log" if _unevenness(np.log(ordered)) <= _unevenness(ordered) else "linear"


def to_scale(values: Any, scale: AxisScale) -> np.ndarray:
    """Values of an axis as coordinates in which its scale is linear: the logarithms on a logarithmic scale."""
    numbers = np.asarray(values, dtype=float)
    return np.asarray(np.log(numbers)) if scale == "log" else numbers


def from_scale(coordinates: Any, scale: AxisScale) -> np.ndarray:
    """The inverse of `to_scale`."""
    numbers = np.asarray(coordinates, dtype=float)
    return np.asarray(np.exp(numbers)) if scale == "log" else numbers


def _unevenness(ordered: np.ndarray) -> float:
    gaps = np.diff(ordered)
    return float(np.std(gaps) / np.mean(gaps))
