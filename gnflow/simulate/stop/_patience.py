"""Waiting, in decades of flow time, for a loss to fall."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...geometry import Snapshot
from ._time_scale import excess_loss, loss_time_scale

DECADES_BETWEEN_LOOKS = 0.1  # as dense as the saved times


class Lowest(eqx.Module):
    """The last value from which a loss has not fallen far enough since.

    **Attributes:** `value`: of the loss; `time`: flow time when it was reached; `clock`: the flow time before which nothing
    need have happened, in which the training loss would vanish at its first rate or, where that is sooner, at its mean rate so
    far: from a saddle of small weights the first rate may be 1e-12 of what follows; `first`: the training loss L - L* then.
    """

    value: Float[Array, ""]
    time: Float[Array, ""]
    clock: Float[Array, ""]
    first: Float[Array, ""]

    @classmethod
    def at_start(cls, value: Float[Array, ""], start: Snapshot) -> "Lowest":
        """Of the first state."""
        return cls(value, jnp.zeros(()), loss_time_scale(start), excess_loss(start))

    def lowered(self, value: Float[Array, ""], fall: Float[Array, ""] | float, snapshot: Snapshot) -> "Lowest":
        """After `value`: itself, or that where it is below this one by more than the share `fall`."""
        lower = value < self.value - fall * jnp.abs(self.value)
        fallen = self.first - excess_loss(snapshot)
        vanishing = jnp.where(fallen > 0, snapshot.time * self.first / jnp.where(fallen > 0, fallen, 1.0), jnp.inf)
        return Lowest(
            jnp.where(lower, value, self.value),
            jnp.where(lower, snapshot.time, self.time),
            jnp.minimum(self.clock, vanishing),
            self.first,
        )

    def decades(self, time: Float[Array, ""]) -> Float[Array, ""]:
        """log10 of flow time over that of the lowest value; 0 before it."""
        return jnp.log10(jnp.maximum(time / jnp.maximum(self.time, self.clock), 1.0))
