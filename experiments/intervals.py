"""What is said of several seeds: means with 95% intervals, and whether a claim is seen."""

from typing import Any, NamedTuple

import numpy as np
import scipy.stats

_CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean over seeds and its 95% interval by Student's t, nan where there is one seed only."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if not np.isfinite(self.low):
            return f"{number(self.mean)} (one seed)"
        return f"{number(self.mean)} ({number(self.low)} to {number(self.high)})"


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"


def interval(values: Any) -> Interval:
    """Of the mean of values that are normally distributed over seeds."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if values.size < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = scipy.stats.t.ppf((1 + _CONFIDENCE) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return Interval(mean, mean - float(half), mean + float(half))


def ratio(above: Any, below: Any) -> Interval:
    """Of the geometric mean of above/below, seed by seed: the two have data and initial network in common."""
    logs = interval(np.log(np.asarray(above, dtype=float)) - np.log(np.asarray(below, dtype=float)))
    return Interval(*(float(np.exp(value)) for value in logs))


def verdict(value: Interval, bound: float, below: bool) -> str:
    """*seen* if the interval lies wholly on the claim's side of `bound`, *not seen* if wholly on the other, and else *open*.

    **Arguments:** `below`: whether the claim is that the value is below the bound.
    """
    if not np.isfinite(value.low):
        return "open"
    side = value.high < bound if below else value.low > bound
    other = value.low > bound if below else value.high < bound
    return "**seen**" if side else "not seen" if other else "open"
