"""Fit the output layer alone: the start of pre-trained runs, and random features in one step."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import DataError, ModelError, jit_for_states, require_non_negative
from ..problems import AbstractProblem
from ._system import System

# Of the targets: how far the outputs may be from what they are if the model is linear in its output layer.
_LINEAR = 1e-6


def minimum_norm_coefficients(
    gram: Float[Array, "rows rows"], targets: Float[Array, "rows columns"], cutoff: float | Float[Array, ""]
) -> Float[Array, "rows columns"]:
    """G^+ y: with G = F F^T the least-squares solution of least norm of F v = y is F^T G^+ y.

    **Arguments:**

    - `gram`: a Gram matrix G (n, n).
    - `targets`: y (n, m).
    - `cutoff`: eigenvalues up to this share of the largest count as zero, dimensionless.
    """
    eigenvalues, modes = jnp.linalg.eigh(gram)
    kept = eigenvalues > cutoff * eigenvalues[-1]
    return modes @ jnp.where(kept[:, None], (modes.T @ targets) / jnp.where(kept, eigenvalues, 1.0)[:, None], 0.0)


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
    weights, apart = _fitted(system, system.weights(model), jnp.asarray(cutoff))
    if not float(apart) <= _LINEAR:
        raise ModelError(
            f"{type(model).__name__} is not linear in the weights called 'output' (outputs are off by {float(apart):.1e} of "
            "the targets' norm); fit_output_layer solves for a linear output layer."
        )
    return system.model(weights)


@jit_for_states
def _fitted(system: System, weights: Any, cutoff: Float[Array, ""]) -> tuple[Any, Float[Array, ""]]:
    """The fitted weights, and how far the outputs are from F v, relative to the targets."""
    nothing = jax.tree.map(jnp.zeros_like, weights)
    tangent, targets = system.tangent(nothing), system.problem.y_train
    missing = (targets - tangent.outputs).reshape(-1, 1)
    coefficients = minimum_norm_coefficients(tangent.gram(), missing, cutoff).reshape(targets.shape)
    fitted = tangent.vjp(coefficients)
    expected = tangent.outputs + tangent.jvp(fitted)
    scale = jnp.linalg.norm(targets) + jnp.linalg.norm(tangent.outputs)
    apart = jnp.linalg.norm(system.outputs(fitted) - expected) / jnp.where(scale > 0, scale, 1.0)
    return fitted, apart
