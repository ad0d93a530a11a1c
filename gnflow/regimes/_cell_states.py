"""Why a cell has no value: it failed, it was not computed, or the quantity is not defined there."""

import numpy as np
import xarray as xr

from ._checks import require_variable

MISSING = "missing"
FAILED = "failed"
UNDEFINED = "undefined"
FINITE = "finite"
INFINITE = "infinite"


def cell_states(dataset: xr.Dataset, variable: str) -> xr.DataArray:
    """What became of `variable` in each cell of a sweep, as text, over the dimensions of the variable.

    - "missing": the cell has not been computed (its `result` is "missing");
    - "failed": its run failed (`failed` is True), whatever values it left;
    - "finite": there is a number;
    - "infinite": it is plus or minus infinity, as a time to a target that was not reached;
    - "undefined": the run ended well and has no number, as where a metric is not defined for the flow, or where a ratio
      has none because the cell of the reference failed or is missing.

    So no cell is nan without a reason. Data without `result` or `failed` count as computed, and as not failed.

    **Arguments:** `dataset`: as `gnflow.load` gives it for a sweep.

    **Raises:** `ConfigError` for a variable that the data set has not.
    """
    values = require_variable(dataset, variable)
    numbers = values.to_numpy().astype(float)
    states = np.where(np.isfinite(numbers), FINITE, np.where(np.isinf(numbers), INFINITE, UNDEFINED)).astype(object)
    labelled = xr.DataArray(states, dims=values.dims, coords=values.coords, name=f"state_of_{variable}")
    if "failed" in dataset:
        labelled = labelled.where(~dataset["failed"].astype(bool), FAILED).transpose(*values.dims)
    if "result" in dataset:
        labelled = labelled.where(dataset["result"] != MISSING, MISSING).transpose(*values.dims)
    return labelled.assign_attrs(long_name=f"what became of {values.attrs.get('long_name', variable)}", units="1")
