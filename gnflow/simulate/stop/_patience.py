"""Measure in decades of flow time for how long a loss has not fallen."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...geometry import Snapshot
from ._time_scale import excess_loss, loss_time_scale

DECADES_BETWEEN_LOOKS = 0.1  # as dense as the default saved times


class Lowest(eqx.Module):
    """The last value of a loss from which it has not fallen far enough since.

    **Attributes:**

    - `value`: the value of the loss.
    - `time`: the flow time at which it was reached.
    - `clock`: the flow time before which no fall is expected. It is the time in which the training loss would vanish at its
      first rate, or at its mean rate so far if that is sooner: at a saddle of small weights the first rate may be 1e-12 of the
      later ones.
    - `first`: the training loss L - L* at the start.
    """

    value: Float[Array, ""]
    time: Float[Array, ""]
    clock: Float[Array, ""]
    first: Float[Array, ""]

    @classmethod
    def at_start(cls, value: Float[Array, ""], start: Snapshot) -> "Lowest":
        """The lowest value at the first state."""
        return cls(value, jnp.zeros(()), loss_time_scale(start), excess_loss(start))

    def lowered(self, value: Float[Array, ""], fall: Float[Array, ""] | float, snapshot: Snapshot) -> "Lowest":
        """The lowest value after the loss has reached `value`.

        It becomes `value` if that is below the present one by more than the share `fall`.
        """
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
        """log10 of the flow time over the time of the lowest value or the clock, whichever is later; at least 0."""
        return jnp.log10(jnp.maximum(time / jnp.maximum(self.time, self.clock), 1.0))
