"""Restrict numbers to those that axes can show.

Matplotlib's ticks and margins overflow for numbers near the ends of double precision.
"""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from matplotlib.lines import Line2D

from ..regimes import summarise_seeds

LARGEST = 1e100  # largest absolute value
_SMALLEST = 1e-100  # numbers closer to zero count as zero
_LEAST_SPREAD = 1e-9  # smallest spread of an axis, relative to its values


def bounded(values: np.ndarray) -> np.ndarray:
    """`values` as floats. Those beyond 1e100 become infinite, and those within 1e-100 of zero become zero."""
    numbers = np.array(values, dtype=float)
    size = np.abs(numbers)
    numbers[size > LARGEST] = np.copysign(np.inf, numbers[size > LARGEST])
    numbers[size < _SMALLEST] = 0.0
    return numbers


def drawable(values: np.ndarray, scale: str) -> np.ndarray:
    """`values` with nan for numbers that an axis of this scale ("log" or another) cannot show. nan is a gap in a line."""
    numbers = bounded(values)
    return np.where(np.isfinite(numbers) & ((numbers > 0) | (scale != "log")), numbers, np.nan)


def are_beyond(values: np.ndarray) -> bool:
    """Whether any of `values` is nan, infinite or beyond 1e100. Zero and negative numbers do not count."""
    return not bool(np.all(np.isfinite(bounded(values))))


def left_out_handle() -> Line2D:
    """A legend entry that says what the figure leaves out."""
    return Line2D([], [], linestyle="", label=f"not drawn: nan, inf, beyond {LARGEST:.0e}".replace("e+", "e"))


def summary_of(data: xr.Dataset, variable: str, interval: float = 1.0) -> xr.Dataset:
    """`gnflow.regimes.summarise_seeds` without warnings for numbers whose sum is not finite."""
    with np.errstate(all="ignore"):
        return summarise_seeds(data, variable, interval)


def bounded_variable(data: xr.Dataset, variable: str) -> xr.Dataset:
    """`data` with one of its variables passed through `bounded`."""
    return data.assign({variable: data[variable].copy(data=bounded(data[variable].to_numpy()))})


def bounded_summary(summary: xr.Dataset) -> xr.Dataset:
    """A summary over seeds for drawing. Cells with a median beyond 1e100 get the state "infinite"."""
    numbers = {name: (summary[name].dims, bounded(summary[name].to_numpy())) for name in ("median", "lower", "upper")}
    state = summary["state"].where(np.isfinite(numbers["median"][1]) | (summary["state"] != "finite"), "infinite")
    return summary.assign({**numbers, "state": state})


def with_drawable_axes(dataset: xr.Dataset, names: Iterable[str | None]) -> xr.Dataset:
    """`dataset` with text for the values of axes whose numbers cannot be told apart on an axis.

    These are values beyond 1e100 or within 1e-100 of zero, and values that differ by less than a part in 1e9.
    """
    texts = {}
    for name in names:
        values = np.asarray([]) if name is None or name not in dataset.coords else dataset[name].to_numpy()
        if values.dtype.kind in "iuf" and values.size and not are_apart(values.astype(float)):
            texts[name] = (name, [f"{value!r}" for value in values.tolist()], dataset[name].attrs)
    return dataset.assign_coords(texts)


def are_apart(values: np.ndarray) -> bool:
    """Whether the numbers can be told apart on an axis. Numbers that are not finite can, because they are drawn as names."""
    if not np.all(np.isfinite(values)):
        return True
    if not np.array_equal(bounded(values), values):
        return False
    gaps = np.diff(np.unique(values))
    return not gaps.size or bool(gaps.max() > _LEAST_SPREAD * np.abs(values).max())
