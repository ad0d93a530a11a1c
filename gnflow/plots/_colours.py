"""On which scale, and in which colours, a quantity is drawn: one for all panels."""

from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

# A quantity is drawn on a logarithmic scale from this ratio of its largest to its smallest value on, ...
_LEAST_RATIO = 10.0
# ... which goes no further down than this from its largest: kernels that stand still move by rounding, 1e-30 of anything.
_MOST_DECADES = 10
_LEAST_SPREAD = 1.05  # of a diverging scale about 1


class ColourScale(NamedTuple):
    """Colours, the numbers they stand for, and the ends of the scale; maps that can be read without red-green vision."""

    colours: Colormap
    norm: Normalize
    low: float
    high: float


def is_ratio(name: str) -> bool:
    """Whether the variable compares two numbers, so that 1 is its middle."""
    return name.endswith(("_ratio", "_gain"))


def log_range(name: str, values: np.ndarray) -> tuple[float, float] | None:
    """The ends of the logarithmic scale that `values` are drawn on, or None where it is a linear one.

    Logarithmic are ratios, and what is not negative and spans a decade. Zeros, and values more than ten decades below the
    largest, lie below the scale and are marked so.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() < 0 or finite.max() <= 0:
        return None
    kept = finite[finite >= finite.max() / 10.0**_MOST_DECADES]
    low, high = float(kept[kept > 0].min()), float(kept.max())
    return (low, high) if is_ratio(name) or high >= _LEAST_RATIO * low else None


def colour_scale(name: str, values: np.ndarray) -> ColourScale:
    """The scale for all `values` that are finite: viridis, or blue to red about 1, the same distance to either side, for a
    ratio."""
    finite = values[np.isfinite(values)]
    ends = log_range(name, values)
    if ends is not None and is_ratio(name):
        reach = max(ends[1], 1 / ends[0], _LEAST_SPREAD)
        return ColourScale(colormaps["RdBu_r"], LogNorm(1 / reach, reach), 1 / reach, reach)
    if ends is not None:
        return ColourScale(colormaps["viridis"], LogNorm(*ends), *ends)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low == high:
        low, high = (low / 2, 2 * low) if low > 0 else (low - 0.5, high + 0.5)
    return ColourScale(colormaps["viridis"], Normalize(low, high), low, high)


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis that show at least two numbers also where it spans less than a decade or two."""
    if high >= 100 * low:
        axis.set_major_locator(LogLocator(numticks=6))
    else:
        if high >= 4 * low:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=15))
        else:
            # So short a part of the axis is nearly linear: round numbers at equal distances, on both sides of 1 for a ratio.
            ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
            axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
