"""The states of cells: why a cell has no value."""

import numpy as np
import xarray as xr

from ._checks import require_variable

MISSING = "missing"
FAILED = "failed"
UNDEFINED = "undefined"
FINITE = "finite"
INFINITE = "infinite"


def cell_states(dataset: xr.Dataset, variable: str) -> xr.DataArray:
    """The state of `variable` in each cell of a sweep, as text, over the dimensions of the variable.

    - "missing": the cell has not been computed (its `result` is "missing").
    - "failed": its run failed (`failed` is True), even if it left values.
    - "finite": the value is a finite number.
    - "infinite": the value is plus or minus infinity, such as the time to a target that was not reached.
    - "undefined": the run did not fail, but has no number: a metric may not be defined for the flow, or the cell of a ratio's
      reference may have failed or be missing.

    So every nan has a reason. Data without `result` count as computed, data without `failed` as not failed.

    **Arguments:**

    - `dataset`: the data set of a sweep, from `gnflow.load`.
    - `variable`: the name of a variable.

    **Raises:** `ConfigError` for a variable that the data set does not have.
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
