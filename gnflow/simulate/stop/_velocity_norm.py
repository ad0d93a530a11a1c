"""Stop at a small norm of the velocity."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import tree_norm
from ...geometry import Snapshot
from ._base import AbstractStopRule, log, positive_field


class VelocityNorm(AbstractStopRule):
    """Stop when ||w'|| <= tolerance, the Euclidean norm over all trained weights, per unit of flow time.

    It is the rule for flows that do not rest where grad L vanishes, such as one with weight decay. It costs one velocity per
    step. The weights of a run are accurate to `rtol` of their size, so that a velocity below this accuracy divided by the
    length of a step may never be reached: ask for a smaller `rtol`, too. In `iterate` the velocity is that on all samples, also
    with mini-batches.

    **Raises:** `ConfigError` unless the tolerance is positive and finite.
    """

    tolerance: float = positive_field("VelocityNorm: tolerance", 1e-6)

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """log ||w'|| - log tolerance."""
        return log(tree_norm(snapshot.velocity)) - jnp.log(self.tolerance)

    def describe(self) -> str:
        """The rule as a clause."""
        return f"the norm of the velocity reached {float(self.tolerance):.3g}"

    def why_unmet(self) -> str:
        """Weights, and with them velocities, are only as accurate as rtol allows."""
        return (
            f"VelocityNorm({float(self.tolerance):.3g}) may lie below what weights of this accuracy come to where the flow "
            "rests: tighten rtol, or ask for a larger norm."
        )
