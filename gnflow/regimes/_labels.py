"""The regime of each cell, by thresholds."""

import numpy as np
import xarray as xr

from ._cell_states import FAILED, MISSING, UNDEFINED, cell_states
from ._checks import SEED, require_above, require_variable

KERNEL = "kernel"
INTERMEDIATE = "intermediate"
FEATURE = "feature learning"

# The order in which they are drawn and counted.
regime_names = (KERNEL, INTERMEDIATE, FEATURE, UNDEFINED, FAILED, MISSING)


def label_regimes(
    dataset: xr.Dataset, variable: str = "kernel_distance", kernel: float = 0.1, feature: float = 0.5
) -> xr.DataArray:
    """The regime of each cell of a sweep, as text.

    - "kernel": `variable` is at most `kernel`.
    - "feature learning": it is at least `feature`, and above `kernel`.
    - "intermediate": it lies between the thresholds.
    - "failed", "missing": there is no run to judge.
    - "undefined": the run has no number.

    The thresholds are conventions: the change from one regime to the other is gradual. The defaults are for the kernel distance
    1 - <A_t, A_0>/(||A_t|| ||A_0||) at the end of the run, which is 0 if the kernel kept its shape and cannot exceed 1.

    **Arguments:**

    - `dataset`: the data set of a sweep, from `gnflow.load`.
    - `variable`: the name of a movement that is small in the kernel regime.
    - `kernel`: the largest value of the kernel regime, in the units of the variable.
    - `feature`: the smallest value of feature learning, at least `kernel`.

    **Returns:** text over the dimensions of the variable; `attrs` hold `variable`, `kernel` and `feature`.

    **Raises:** `ConfigError` for a variable that the data set does not have, or thresholds out of order.

    Source: lazy training and its measures, Chizat, Oyallon, Bach 2019; the kernel distance, docs/theory.md.
    """
    require_above(kernel=kernel, feature=feature)
    values = require_variable(dataset, variable)
    states = cell_states(dataset, variable)
    numbers = values.to_numpy().astype(float)
    regimes = np.select(
        [np.isnan(numbers), numbers <= kernel, numbers >= feature], [UNDEFINED, KERNEL, FEATURE], INTERMEDIATE
    )
    labels = states.where(states.isin([FAILED, MISSING]), xr.DataArray(regimes.astype(object), dims=values.dims))
    return labels.rename("regime").assign_attrs(
        long_name=f"regime by {values.attrs.get('long_name', variable)}",
        units="1",
        variable=variable,
        kernel=float(kernel),
        feature=float(feature),
    )


def regime_counts(labels: xr.DataArray) -> xr.DataArray:
    """The number of seeds of each cell in each regime.

    **Arguments:** `labels`: what `label_regimes` returns.

    **Returns:** integers over "regime" and the dimensions of `labels` without "seed".
    """
    seeds = labels if SEED in labels.dims else labels.expand_dims(SEED)
    counts = xr.concat([(seeds == name).sum(SEED) for name in regime_names], dim="regime")
    counts = counts.assign_coords(regime=list(regime_names)).rename("num_seeds").assign_attrs(labels.attrs)
    return counts.transpose(..., "regime").assign_attrs(long_name="seeds in the regime", units="1")
