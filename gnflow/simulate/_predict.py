"""Outputs of a model on new inputs."""

from typing import Any

from jaxtyping import Array, Float

from .._core import in_batches, jit_for_states
from ..problems import AbstractProblem


def predict(model: Any, problem: AbstractProblem, x: Any) -> Float[Array, "samples outputs"]:
    """The outputs (n, C) of `model` on inputs x (n, ...), both in the units of the user's data.

    **Raises:** `DataError` for inputs that are not finite numbers or not of the shape of the problem's.
    """
    return problem.restore_outputs(_outputs(model, problem.prepare_inputs(x)))


@jit_for_states
def _outputs(model: Any, inputs: Float[Array, "samples ..."]) -> Float[Array, "samples outputs"]:
    outputs = in_batches(model, inputs)
    return outputs.reshape(outputs.shape[0], -1)
