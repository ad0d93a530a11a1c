"""The distance of the weights from their start, and the angle by which they have turned."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_dot, tree_norm, tree_subtract
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable

_SOURCE = "docs/theory.md, Metrics"


class WeightChange(AbstractMetric):
    """||w_t - w_0||, in units of the weights, and <w_t, w_0> / (||w_t|| ||w_0||), between -1 and 1, of all trained weights.

    `RelativeWeightMovement` has the norm relative to ||w_0||, also by layer. Weights that are all zero have no direction: the
    cosine is 1 if w_t = w_0 = 0, and 0 if only one of them is zero.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`weight_change_norm` and `weight_cosine`; defined for every model."""
        return (
            Variable("weight_change_norm", "norm of the change of the weights", "weights", _SOURCE),
            Variable("weight_cosine", "cosine of the weights with the start", "1", _SOURCE),
        )

    def prepare(self, start: Snapshot) -> PyTree:
        """w_0."""
        return start.weights

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The norm and the cosine; 0 and 1 at the start."""
        change = tree_norm(tree_subtract(snapshot.weights, memory))
        lengths = tree_norm(snapshot.weights) * tree_norm(memory)
        cosine = tree_dot(snapshot.weights, memory) / jnp.where(lengths == 0, 1.0, lengths)
        return {
            "weight_change_norm": change,
            "weight_cosine": jnp.where(lengths == 0, jnp.where(change == 0, 1.0, 0.0), cosine),
        }
