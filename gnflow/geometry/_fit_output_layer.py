"""Fit the output layer alone: the start of pre-trained runs, and random features in one step."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import DataError, ModelError, jit_for_states, require_non_negative
from ..problems import AbstractProblem
from ._readout import Readout, require_linear
from ._system import System


def fit_output_layer(model: Any, problem: AbstractProblem, cutoff: float = 1e-10) -> Any:
    """The model with the output layer that fits the training targets best, of least norm; the other weights stay.

    The weights of the group "output" become v = F^T (F F^T)^+ y, where F is the Jacobian of the outputs in them and eigenvalues
    of F F^T up to `cutoff` times the largest count as zero. What v was before does not matter. Flows that start from it start
    pre-trained; a flow that moves the output layer alone has little left to do. In a configuration: `fit_output = true` in
    `[model]`.

    A mode that is cut off keeps its part of the targets. So the loss that is left grows with the cut-off and with the
    conditioning of the features, which is bad for a small `init_scale`.

    **Arguments:**

    - `model`: a model with a group of weights called "output" in which it is linear (`MeanFieldNetwork`, `MLP`,
      `RandomFeatures`).
    - `problem`: the problem, with the squared loss.
    - `cutoff`: >= 0, dimensionless; 1e-10 is that of [A]'s released code.

    **Returns:** a model of the same structure.

    **Raises:** `DataError` for another loss, `ModelError` for a model without the group "output" or that is not linear in it,
    `ConfigError` or `PrecisionError` for bad arguments.

    Source: [A] Arbel et al. 2023, arXiv 2302.02904, its released code (the first step of random features and of pre-training).
    """
    (cutoff,) = require_non_negative(ModelError, cutoff=cutoff)
    system = System(problem, model, "output")
    if not system.loss.is_squared_distance:
        raise DataError(
            f"the output layer is fitted by least squares, but the loss is {type(system.loss).__name__}; expected SquaredLoss. "
            'Train it with Frozen(flow, trainable="output") instead.'
        )
    weights = system.weights(model)
    group = require_linear(system, weights, "output")
    return system.model(_fitted(system, weights, group, jnp.asarray(cutoff)))


@jit_for_states
def _fitted(system: System, weights: Any, group: Any, cutoff: Float[Array, ""]) -> Any:
    return Readout.of(system, weights, group).solve(cutoff)
