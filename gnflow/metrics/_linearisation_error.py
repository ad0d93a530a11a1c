"""The error of the model's linearisation about its initial weights."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_norm, tree_subtract
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable, ratio


class LinearisationError(AbstractMetric):
    """||f_t - f_0 - J_0 (w_t - w_0)|| / ||f_t - f_0|| on the training inputs: dimensionless, 0/0 = 0 at the start.

    It compares the model with its first-order expansion about w_0 at the same weights w_t of this run. The numerator is at
    most (K/2) ||w_t - w_0||^2, where K is the Lipschitz constant of J. The metric needs no second run and does not depend on
    how time is measured along the path.

    Lee et al. 2019 (arXiv 1902.06720) let the linearised model follow its own flow instead, to other weights w^lin_t, and
    compare at the same time: ||f_t - f^lin(w^lin_t)||. By the triangle inequality that is at most this metric's numerator plus
    ||J_0 (w_t - w^lin_t)||. To measure it, run the same flow on `gnflow.models.Linearised(model)` and subtract.

    As long as the outputs have hardly moved the value is rounding, of the size epsilon ||f_t|| / ||f_t - f_0||.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`linearisation_error`; defined for every model."""
        return (
            Variable(
                "linearisation_error",
                "relative error of the linearisation about the start",
                "1",
                "Lee et al. 2019 (arXiv 1902.06720); Chizat, Oyallon, Bach 2019",
            ),
        )

    def prepare(self, start: Snapshot) -> PyTree:
        """w_0. The tangent there holds arrays of N x width, so it is made again when it is needed."""
        return start.weights

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The error, by one linearisation at w_0 and one J product."""
        system = snapshot.system
        displacement = tree_subtract(snapshot.weights, memory)
        linear_change = system.tangent(memory).jvp(displacement)
        # Two compilations of the same outputs may round differently; at the start the result would be a quotient of roundings.
        moved = tree_norm(displacement) > 0
        change = jnp.where(moved, snapshot.train_outputs - system.outputs(memory), 0.0)
        return {"linearisation_error": ratio(jnp.linalg.norm(change - linear_change), jnp.linalg.norm(change))}
