"""Order parameters: quantities that tell regimes apart, and that compare the generalisation of flows."""

import numpy as np
import xarray as xr

from .._core import ConfigError, look_up
from ._checks import FLOW

_KEPT = (
    "train_loss",
    "test_loss",
    "refit_test_loss",
    "kernel_distance",
    "relative_ntk_change",
    "relative_weight_movement",
    "relative_weight_movement_hidden",
    "direction_distance_to_initial",
    "direction_distance_to_teacher",
    "feature_cka_train",
    "linearisation_error",
    "flow_time",
    "num_steps",
    "wall_seconds",
    "time_to_target",
    "result",
    "failed",
)


def order_parameters(dataset: xr.Dataset, reference: str | None = None) -> xr.Dataset:
    """The order parameters of a sweep, cell by cell: the measured ones, and two ratios of them.

    - `hidden_learning_gain` = test_loss / refit_test_loss, if the metric `hidden_learning` was measured: how many times
      smaller the test loss becomes when the output layer is refitted to the final features. A gain far above 1 is the hidden
      learning of [A]: the features are good, but the output layer does not use them.
    - `test_loss_ratio` = test_loss / test_loss of the flow `reference` in the same cell and for the same seed, if there are two
      flows or more. Below 1 the flow generalises better than the reference.

    Both are dimensionless; 0/0 counts as 1. A ratio is nan if one of its two numbers is; `cell_states` tells why.

    **Arguments:**

    - `dataset`: the data set of a sweep, from `gnflow.load`.
    - `reference`: the name of a flow; the first one by default.

    **Returns:** those of the following that the data set has: losses, movements of kernel, weights and features, linearisation
    error, times and results; and the two ratios. `attrs["reference"]` is the name of the reference.

    **Raises:** `ConfigError` for a reference that is not a flow of the data set.

    Source: [A] Arbel et al. 2023, arXiv 2302.02904 (hidden learning, comparison of test losses).
    """
    kept = dataset[[name for name in _KEPT if name in dataset]].assign_attrs(dataset.attrs)
    if "test_loss" not in dataset:
        if reference is not None:
            raise ConfigError(f"reference = {reference!r}, but the data set has no test_loss to compare flows by.")
        return kept
    loss = dataset["test_loss"]
    if "refit_test_loss" in dataset:
        kept["hidden_learning_gain"] = _ratio(loss, dataset["refit_test_loss"]).assign_attrs(
            long_name="test loss over refitted test loss",
            units="1",
            reference="Arbel et al. 2023 (arXiv 2302.02904), experiments",
        )
    flows = [str(name) for name in dataset[FLOW].to_numpy()] if FLOW in loss.dims else []
    if reference is not None:
        look_up(reference, dict.fromkeys(flows), "flow of reference")
    if len(flows) > 1:
        chosen = reference or flows[0]
        ratio = _ratio(loss, loss.sel({FLOW: chosen}, drop=True)).transpose(*loss.dims)
        kept["test_loss_ratio"] = ratio.assign_attrs(
            long_name=f"test loss relative to {chosen.replace('_', ' ')}",
            units="1",
            reference="Arbel et al. 2023 (arXiv 2302.02904), experiments",
        )
        kept.attrs["reference"] = chosen
    return kept


def _ratio(numerator: xr.DataArray, denominator: xr.DataArray) -> xr.DataArray:
    # Zeros in the denominator are values here (inf, or 1 for 0/0), not accidents.
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = numerator / denominator
    return quotient.where(~((numerator == 0) & (denominator == 0)), 1.0)
