"""Medians and intervals over seeds."""

import math

import numpy as np
import xarray as xr

from ._cell_states import FAILED, FINITE, INFINITE, MISSING, UNDEFINED, cell_states
from ._checks import SEED, require_share, require_variable


def summarise_seeds(dataset: xr.Dataset, variable: str, interval: float = 1.0) -> xr.Dataset:
    """Median and interval over the seeds of each cell, and the number of seeds behind them.

    **Arguments:**

    - `dataset`: the data set of a sweep, from `gnflow.load`.
    - `variable`: the name of a variable.
    - `interval`: the central share of the seeds that `lower` and `upper` enclose (at least), above 0; 1.0 for their range.

    **Returns:** a data set over the dimensions of the variable without "seed":

    - `median`, `lower`, `upper`: over the seeds that have a value, also an infinite one.
    - `num_values`, `num_failed`, `num_missing`, `num_undefined`: the number of seeds by their state.
    - `state`: "finite" or "infinite". If no seed has a value it is the first of "failed", "missing" and "undefined" that
      occurs.

    **Raises:** `ConfigError` for a variable that the data set does not have, or an interval outside its range.
    """
    require_share("interval", interval)
    values, states = require_variable(dataset, variable), cell_states(dataset, variable)
    if SEED not in values.dims:
        values, states = values.expand_dims(SEED, -1), states.expand_dims(SEED, -1)
    values, states = values.transpose(..., SEED), states.transpose(..., SEED)
    dims = values.dims[:-1]
    valued = states.isin([FINITE, INFINITE]).to_numpy()
    numbers = np.where(valued, values.to_numpy().astype(float), np.nan)
    shape = numbers.shape[:-1]
    lines = numbers.reshape(-1, numbers.shape[-1])
    found = np.asarray([median_and_interval(line[~np.isnan(line)], interval) for line in lines])
    median, lower, upper = found.reshape(*shape, 3).transpose(-1, *range(len(shape)))
    counts = {name: (states == name).sum(SEED).to_numpy() for name in (FAILED, MISSING, UNDEFINED)}
    state = np.select(
        [np.isfinite(median), valued.any(-1), *(count > 0 for count in counts.values())],
        [FINITE, INFINITE, *counts],
        MISSING,
    )
    parts = {
        "median": median,
        "lower": lower,
        "upper": upper,
        "num_values": valued.sum(-1),
        **{f"num_{name}": count for name, count in counts.items()},
        "state": state.astype(object),
    }
    coords = {name: coord for name, coord in values.coords.items() if SEED not in coord.dims}
    summary = xr.Dataset({name: (dims, array) for name, array in parts.items()}, coords=coords)
    for name in ("median", "lower", "upper"):
        summary[name].attrs.update(values.attrs)
    return summary.assign_attrs(variable=variable, interval=float(interval))


def median_and_interval(values: np.ndarray, interval: float) -> tuple[float, float, float]:
    """Median, lower and upper end of the central share of the values, as order statistics, which include infinite values.

    All three are nan if there are no values. The median between minus and plus infinity is nan.
    """
    if values.size == 0:
        return math.nan, math.nan, math.nan
    ordered = np.sort(values)
    last = ordered.size - 1
    # The product may be a whole number up to rounding, which must not lower its floor.
    low = max(0, math.floor((1 - interval) / 2 * last + 1e-9))
    middle = ordered[[last // 2, -(-last // 2)]]
    if middle[0] == middle[1]:
        median = middle[0]
    elif np.isinf(middle).all():
        median = math.nan
    else:
        median = middle.mean()
    return float(median), float(ordered[low]), float(ordered[last - low])
