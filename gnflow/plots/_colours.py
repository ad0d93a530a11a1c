"""The scale and the colours of a quantity, the same in all panels."""

from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

# The ratio of its largest to its smallest value from which on a quantity is drawn on a logarithmic scale.
_LEAST_RATIO = 10.0
# The length of a logarithmic scale: kernels that stand still move by rounding, 1e-30 or less, which should not be shown.
_MOST_DECADES = 10
_LEAST_SPREAD = 1.05  # half width, as a factor, of a diverging scale about 1


class ColourScale(NamedTuple):
    """A colour map, the numbers that its colours stand for, and the ends of the scale.

    The maps can be read without red-green vision.
    """

    colours: Colormap
    norm: Normalize
    low: float
    high: float


def is_ratio(name: str) -> bool:
    """Whether the variable is a ratio of two numbers, so that 1 is its neutral value."""
    return name.endswith(("_ratio", "_gain"))


def log_range(name: str, values: np.ndarray) -> tuple[float, float] | None:
    """The ends of the logarithmic scale for `values`, or None for a linear scale.

    The scale is logarithmic for ratios and for values without a negative one that span a decade. Zeros, and values more than
    ten decades below the largest, lie below the scale and are marked.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() < 0 or finite.max() <= 0:
        return None
    kept = finite[finite >= finite.max() / 10.0**_MOST_DECADES]
    low, high = float(kept[kept > 0].min()), float(kept.max())
    return (low, high) if is_ratio(name) or high >= _LEAST_RATIO * low else None


def colour_scale(name: str, values: np.ndarray) -> ColourScale:
    """The scale for all finite `values`: viridis, or for a ratio blue to red, with equal distances to both sides of 1."""
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
    """Set ticks of a logarithmic axis that show at least two numbers, also if it spans less than a decade or two."""
    if high >= 100 * low:
        axis.set_major_locator(LogLocator(numticks=6))
    else:
        if high >= 4 * low:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=15))
        else:
            # Such a short axis is nearly linear: round numbers at equal distances, on both sides of 1 for a ratio.
            ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
            axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
