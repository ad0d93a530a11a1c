"""The regime of each cell, by stated thresholds."""

import numpy as np
import xarray as xr

from ._cell_states import FAILED, MISSING, UNDEFINED, cell_states
from ._checks import SEED, require_above, require_variable

KERNEL = "kernel"
INTERMEDIATE = "intermediate"
FEATURE = "feature learning"

# In the order in which they are drawn and counted.
regime_names = (KERNEL, INTERMEDIATE, FEATURE, UNDEFINED, FAILED, MISSING)


def label_regimes(
    dataset: xr.Dataset, variable: str = "kernel_distance", kernel: float = 0.1, feature: float = 0.5
) -> xr.DataArray:
    """The regime of each cell of a sweep, as text.

    "kernel" where `variable` is at most `kernel`, "feature learning" where it is at least `feature`, "intermediate" in
    between; "failed" and "missing" where there is no run to judge, and "undefined" where the run has no number. Where both
    thresholds are equal nothing is intermediate, and a value on them is "kernel".

    The thresholds are conventions, not facts: the change from one regime to the other is gradual. The defaults are for the
    kernel distance 1 - <A_t, A_0>/(||A_t|| ||A_0||) at the end of the run, which is 0 where the kernel kept its shape and
    cannot exceed 1.

    **Arguments:** `dataset`: as `gnflow.load` gives it for a sweep; `variable`: a movement, small in the kernel regime.

    **Returns:** text over the dimensions of the variable; `attrs` hold `variable`, `kernel` and `feature`.

    **Raises:** `ConfigError` for a variable that the data set has not, or thresholds out of order.

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
    """How many seeds of each cell lie in each regime: integers over the dimensions of `labels` without "seed", and "regime".

    **Arguments:** `labels`: what `label_regimes` returns.
    """
    seeds = labels if SEED in labels.dims else labels.expand_dims(SEED)
    counts = xr.concat([(seeds == name).sum(SEED) for name in regime_names], dim="regime")
    counts = counts.assign_coords(regime=list(regime_names)).rename("num_seeds").assign_attrs(labels.attrs)
    return counts.transpose(..., "regime").assign_attrs(long_name="seeds in the regime", units="1")
