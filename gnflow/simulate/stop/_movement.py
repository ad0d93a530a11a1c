"""Stop when the weights have moved far enough."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import tree_norm, tree_subtract
from ...geometry import Snapshot
from ._base import AbstractStopRule, positive_field


class Movement(AbstractStopRule):
    """Stop when ||w - w_0|| >= tolerance * ||w_0||, with Euclidean norms over all trained weights.

    Weights that start at zero have no relative movement. Then the movement itself is compared with the tolerance.

    **Raises:** `ConfigError` unless the tolerance is positive and finite.
    """

    tolerance: float = positive_field("Movement: tolerance", 0.1)

    def prepare(self, start: Snapshot) -> PyTree:
        """w_0, and the scale that the movement is divided by."""
        norm = tree_norm(start.weights)
        return start.weights, jnp.where(norm > 0, norm, 1.0)

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """tolerance - ||w - w_0|| / ||w_0||."""
        start, scale = memory
        return self.tolerance - tree_norm(tree_subtract(snapshot.weights, start)) / scale

    def describe(self) -> str:
        """The rule as a clause."""
        return f"the weights moved by {float(self.tolerance):.3g} of their first norm"
