"""Stop at a loss relative to its first value."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...geometry import Snapshot
from ._base import AbstractStopRule, log, positive_field
from ._time_scale import excess_loss


class RelativeLoss(AbstractStopRule):
    """Stop when (L - L*) / (L_0 - L*) <= tolerance on the training data.

    L* is the infimum of the loss over all outputs: 0, or the entropy of soft labels. The margin is a logarithm, which is nearly
    linear in time where the loss decays exponentially.

    **Raises:** `ConfigError` unless the tolerance is positive and at most 1.
    """

    tolerance: float = positive_field("RelativeLoss: tolerance", 1e-8, most=1.0)

    def prepare(self, start: Snapshot) -> PyTree:
        """log (L_0 - L*)."""
        return log(excess_loss(start))

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """log (L - L*) - log (L_0 - L*) - log tolerance. A state without any excess loss meets the rule."""
        excess = excess_loss(snapshot)
        return jnp.where(excess <= 0, -1.0, log(excess) - memory - jnp.log(self.tolerance))

    def describe(self) -> str:
        """The rule as a clause."""
        return f"the training loss reached {float(self.tolerance):.3g} of its first value"
