"""Outputs of a model on new inputs."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import DataError, in_batches, jit_for_states
from ..problems import Problem
from ..problems._checks import input_matrix


def predict(model: Any, problem: Problem, x: Any) -> Float[Array, "samples outputs"]:
    """The outputs (n, C) of `model` on inputs x (n, d), which are converted and checked as those of a problem are.

    **Raises:** `DataError` for inputs that are not finite numbers or not of the shape of the problem's.
    """
    inputs = jnp.asarray(input_matrix(x, "x"))
    expected = problem.x_train.shape[1:]
    if inputs.shape[1:] != expected:
        raise DataError(
            f"x has shape {inputs.shape}, but the training inputs have shape {problem.x_train.shape}: give "
            f"{_shape('n', *expected)}, a row for each sample, also for one."
        )
    return _outputs(model, inputs)


def _shape(*sizes: Any) -> str:
    return f"({', '.join(map(str, sizes))})"


@jit_for_states
def _outputs(model: Any, inputs: Float[Array, "samples ..."]) -> Float[Array, "samples outputs"]:
    outputs = in_batches(model, inputs)
    return outputs.reshape(outputs.shape[0], -1)
