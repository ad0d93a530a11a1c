"""The norm of the gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import tree_norm
from ...geometry import Snapshot
from ._base import AbstractStopRule, log, positive_field


class GradientNorm(AbstractStopRule):
    """Stop when ||grad_w L|| <= tolerance, the Euclidean norm over all trained weights.

    A flow that rests where the gradient does not vanish (weight decay) never meets it: use `VelocityNorm`.

    **Raises:** `ConfigError` unless the tolerance is positive and finite.
    """

    tolerance: float = positive_field("GradientNorm: tolerance", 1e-6)

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """log ||grad_w L|| - log tolerance."""
        gradient = jax.grad(snapshot.system.train_loss)(snapshot.weights)
        return log(tree_norm(gradient)) - jnp.log(self.tolerance)

    def describe(self) -> str:
        """The rule as a clause."""
        return f"the gradient norm reached {float(self.tolerance):.3g}"
