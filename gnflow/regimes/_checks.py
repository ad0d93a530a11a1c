"""Checks of data sets and of the arguments of this package's functions."""

import xarray as xr

from .._core import ConfigError, look_up

SEED = "seed"
FLOW = "flow"


def require_variable(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """The variable `name`. **Raises:** `ConfigError`, with the names of the variables."""
    return dataset[look_up(name, {str(key): key for key in dataset.data_vars}, "variable of the data set")]


def require_dimension(variable: xr.DataArray, name: str) -> None:
    """Check that the variable has this dimension. **Raises:** `ConfigError`, with the names of its dimensions."""
    look_up(name, {str(dim): dim for dim in variable.dims}, f"axis of {variable.name}")


def require_share(name: str, value: float) -> None:
    """Check that `value` is above 0 and at most 1. **Raises:** `ConfigError`."""
    if not 0 < value <= 1:
        raise ConfigError(f"{name} = {value!r}; expected a share of the seeds, above 0 and at most 1 (their range).")


def require_above(**numbers: float) -> None:
    """Check that the named numbers are finite and in ascending order. **Raises:** `ConfigError`."""
    (low_name, low), (high_name, high) = numbers.items()
    if not (float("-inf") < low <= high < float("inf")):
        raise ConfigError(
            f"{low_name} = {low!r} and {high_name} = {high!r}; expected {low_name} <= {high_name}, finite."
        )
