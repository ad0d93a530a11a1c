"""The norm of the velocity."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import tree_norm
from ...geometry import Snapshot
from ._base import AbstractStopRule, log, positive_field


class VelocityNorm(AbstractStopRule):
    """Stop when ||w'|| <= tolerance, the Euclidean norm over all trained weights, per unit of flow time.

    The rule for flows of your own whose rest is not where grad L vanishes, such as one with weight decay. It costs one velocity
    a step. The weights of a run are accurate to `rtol` of their size, so that a velocity below that accuracy over the length
    of a step may never be reached: ask for a smaller `rtol` too. In `iterate` it is the velocity on all samples, also in
    mini-batches.

    **Raises:** `ConfigError` unless the tolerance is positive and finite.
    """

    tolerance: float = positive_field("VelocityNorm: tolerance", 1e-6)

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """log ||w'|| - log tolerance."""
        return log(tree_norm(snapshot.velocity)) - jnp.log(self.tolerance)

    def describe(self) -> str:
        """A clause."""
        return f"the norm of the velocity reached {float(self.tolerance):.3g}"

    def why_unmet(self) -> str:
        """That weights are as accurate as rtol says, and velocities with them."""
        return (
            f"VelocityNorm({float(self.tolerance):.3g}) may lie below what weights of this accuracy come to where the flow "
            "rests: tighten rtol, or ask for a larger norm."
        )
