"""Boundaries: where a quantity crosses a threshold along an axis, with the uncertainty over the seeds."""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from .._core import ConfigError
from ._cell_states import FINITE, INFINITE, cell_states
from ._checks import SEED, require_dimension, require_share, require_variable
from ._scales import AxisScale, axis_scale, from_scale, to_scale
from ._summary import median_and_interval

CROSSED = "crossed"
BELOW = "below the range"
ABOVE = "above the range"
UNKNOWN_SIDE = "outside the range"
NO_VALUE = "no value"


class _Crossing(NamedTuple):
    position: float  # of the first crossing, in the coordinate in which the axis is linear
    last: float  # of the last crossing
    before: float  # the values of the axis on either side of the first crossing
    after: float
    changes: int
    status: str
    gaps: int


def boundary(
    dataset: xr.Dataset,
    variable: str = "kernel_distance",
    threshold: float = 0.1,
    *,
    along: str,
    interval: float = 1.0,
    trend: str | None = None,
) -> xr.Dataset:
    """Where `variable` crosses `threshold` along an axis, for each seed and over the seeds.

    A crossing is interpolated between two neighbouring values of the axis whose values of the variable lie on either side of
    the threshold. Interpolation is linear in the axis, or in its logarithm if `axis_scale` says so. It is linear in the
    variable, or in its logarithm if both of its values and the threshold are positive. A value equal to the threshold counts
    as below it. Cells without a value are skipped and counted.

    A line that does not cross in the range is censored, not dropped. Its boundary lies below the smallest value of the axis
    (position -inf) or above the largest (+inf); the side of the line and the `trend` tell which. Medians and intervals are
    order statistics and include such lines: the median of three seeds is +inf if two of them are. A median between two seeds
    is their mean on the axis's scale.

    **Arguments:**

    - `dataset`: the data set of a sweep, from `gnflow.load`.
    - `variable`: the name of a variable.
    - `threshold`: a finite number, in the units of the variable.
    - `along`: the name of an axis with numbers.
    - `interval`: the central share of the seeds that `lower` and `upper` enclose (at least); 1.0 for their range.
    - `trend`: whether the variable is "falling" or "rising" along the axis; None for what most lines do from their first to
      their last value.

    **Returns:** a data set. For each seed, over the other dimensions and "seed":

    - `position`: the first crossing from the small end, in the units of the axis.
    - `last_position`: the last crossing; another one if the line is not monotone.
    - `num_crossings`: the number of crossings.
    - `from_value`, `to_value`: the values of the axis on either side of the first crossing; nan without one.
    - `num_without_value`: the number of cells that are skipped.
    - `status`: "crossed", "below the range", "above the range", "outside the range" (no crossing, and no trend to tell the
      side: position nan) or "no value" (no cell has one: position nan).

    Over the seeds, over the other dimensions:

    - `median`, `lower`, `upper`: of the positions.
    - `num_crossed`, `num_below`, `num_above`, `num_undecided`: the number of seeds by status.
    - `num_not_monotone`: the number of seeds with more than one crossing.
    - `median_status`: the status of the median.

    `attrs` hold `variable`, `threshold`, `along`, `scale`, `trend` and `interval`.

    **Raises:** `ConfigError` for a variable or axis that the data set does not have, an axis that is not numeric or holds a
    single value, a threshold that is not finite, and an invalid interval or trend.
    """
    values = require_variable(dataset, variable)
    require_dimension(values, along)
    require_share("interval", interval)
    scale = _require_numbers(values, along, threshold, trend)
    valued = cell_states(dataset, variable).isin([FINITE, INFINITE])
    values = values.astype(float).where(valued).sortby(along)
    if SEED not in values.dims:
        values = values.expand_dims(SEED)
    values = values.transpose(..., SEED, along)
    axis = values[along].to_numpy().astype(float)
    lines = values.to_numpy().reshape(-1, axis.size)
    found_trend = trend or _trend(lines)
    crossings = [_crossing(line, axis, scale, float(threshold), found_trend) for line in lines]
    return _assembled(values, along, crossings, scale, interval).assign_attrs(
        variable=variable,
        threshold=float(threshold),
        along=along,
        scale=scale,
        trend=found_trend or "none",
        interval=float(interval),
    )


def _require_numbers(values: xr.DataArray, along: str, threshold: float, trend: str | None) -> AxisScale:
    if not math.isfinite(threshold):
        raise ConfigError(f"threshold = {threshold!r}; expected a finite number.")
    if trend not in (None, "falling", "rising"):
        raise ConfigError(f'trend = {trend!r}; expected "falling", "rising" or None.')
    if along == SEED:
        raise ConfigError('along = "seed"; a boundary lies along another axis, and the seeds give its uncertainty.')
    axis = values[along].to_numpy()
    scale = axis_scale(axis)
    if scale == "category":
        raise ConfigError(f"along = {along!r}, whose values are {axis.tolist()}; expected an axis with finite numbers.")
    if np.unique(axis).size < 2:
        raise ConfigError(f"along = {along!r} has the single value {axis.tolist()}; a boundary needs two or more.")
    return scale


def _trend(lines: np.ndarray) -> str | None:
    """Whether most lines rise or fall from their first to their last value; None for a tie."""
    votes = 0.0
    for line in lines:
        kept = line[~np.isnan(line)]
        votes += np.sign(kept[-1] - kept[0]) if kept.size > 1 and kept[-1] != kept[0] else 0.0
    if votes == 0:
        return None
    return "rising" if votes > 0 else "falling"


def _crossing(line: np.ndarray, axis: np.ndarray, scale: AxisScale, threshold: float, trend: str | None) -> _Crossing:
    present = ~np.isnan(line)
    gaps = int(np.count_nonzero(~present))
    kept, where = line[present], axis[present]
    nan = math.nan
    if kept.size == 0:
        return _Crossing(nan, nan, nan, nan, 0, NO_VALUE, gaps)
    above = kept > threshold
    pairs = np.flatnonzero(above[1:] != above[:-1])
    if pairs.size == 0:
        if trend is None:
            return _Crossing(nan, nan, nan, nan, 0, UNKNOWN_SIDE, gaps)
        # A falling line that is still above the threshold crosses further on, and so does a rising line that is still below.
        further = bool(above[0]) == (trend == "falling")
        end = math.inf if further else -math.inf
        return _Crossing(end, end, nan, nan, 0, ABOVE if further else BELOW, gaps)
    coordinates = to_scale(where, scale)
    first, last = (
        _interpolated(coordinates[pair : pair + 2], kept[pair : pair + 2], threshold) for pair in (pairs[0], pairs[-1])
    )
    before, after = (float(value) for value in where[pairs[0] : pairs[0] + 2])
    return _Crossing(first, last, before, after, pairs.size, CROSSED, gaps)


def _interpolated(where: np.ndarray, values: np.ndarray, threshold: float) -> float:
    if threshold > 0 and np.all(values > 0):
        values, threshold = np.log(values), math.log(threshold)
    if np.isinf(values).all():
        return float(where.mean())
    if np.isinf(values).any():
        # An infinite value tells only its side, so the finite neighbour is taken as the crossing.
        return float(where[np.isfinite(values)][0])
    share = (threshold - values[0]) / (values[1] - values[0])
    return float(where[0] + share * (where[1] - where[0]))


def _assembled(
    values: xr.DataArray, along: str, crossings: list[_Crossing], scale: AxisScale, interval: float
) -> xr.Dataset:
    dims = values.dims[:-1]
    shape = values.shape[:-1]
    columns = [np.asarray(column).reshape(shape) for column in zip(*crossings, strict=True)]
    position, last, before, after, count, status, gaps = columns
    defined = np.isin(status, (CROSSED, BELOW, ABOVE))
    flat = np.where(defined, position, np.nan).reshape(-1, shape[-1])
    summary = np.asarray([median_and_interval(line[~np.isnan(line)], interval) for line in flat]).reshape(
        *shape[:-1], 3
    )
    median, lower, upper = (_on_axis(summary[..., index], scale) for index in range(3))
    median_status = np.select(
        [np.isfinite(median), median == -np.inf, median == np.inf, (status == NO_VALUE).all(-1)],
        [CROSSED, BELOW, ABOVE, NO_VALUE],
        UNKNOWN_SIDE,
    )
    axis = values[along]
    each = {
        "position": _on_axis(position, scale),
        "last_position": _on_axis(last, scale),
        "num_crossings": count,
        "from_value": before,
        "to_value": after,
        "num_without_value": gaps,
        "status": status.astype(object),
    }
    over_seeds = {
        "median": median,
        "lower": lower,
        "upper": upper,
        "num_crossed": (status == CROSSED).sum(-1),
        "num_below": (status == BELOW).sum(-1),
        "num_above": (status == ABOVE).sum(-1),
        "num_undecided": (~defined).sum(-1),
        "num_not_monotone": (count > 1).sum(-1),
        "median_status": median_status.astype(object),
    }
    coords = {name: coord for name, coord in values.coords.items() if along not in coord.dims}
    result = xr.Dataset(
        {name: (dims, array) for name, array in each.items()}
        | {name: (dims[:-1], array) for name, array in over_seeds.items()},
        coords=coords,
    )
    for name in ("position", "last_position", "from_value", "to_value", "median", "lower", "upper"):
        result[name].attrs.update(
            {
                "long_name": str(axis.attrs.get("long_name", along)),
                **{key: axis.attrs[key] for key in ("units",) if key in axis.attrs},
            }
        )
    return result


def _on_axis(coordinates: np.ndarray, scale: AxisScale) -> np.ndarray:
    """Coordinates as values of the axis. Infinities stay: on a logarithmic scale minus infinity would become 0."""
    return np.where(np.isinf(coordinates), coordinates, from_scale(coordinates, scale))
