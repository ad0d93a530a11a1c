"""Waiting, in decades of flow time, for a loss to fall."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...geometry import Snapshot
from ._time_scale import loss_time_scale

DECADES_BETWEEN_LOOKS = 0.1  # as dense as the saved times


class Lowest(eqx.Module):
    """The last value from which a loss has not fallen far enough since.

    **Attributes:** `value`: of the loss; `time`: flow time when it was reached, and no earlier than the time scale of the
    training loss's first decrease, before which nothing need have happened.
    """

    value: Float[Array, ""]
    time: Float[Array, ""]

    @classmethod
    def at_start(cls, value: Float[Array, ""], start: Snapshot) -> "Lowest":
        """Of the first state."""
        return cls(value, loss_time_scale(start))

    def lowered(self, value: Float[Array, ""], fall: Float[Array, ""] | float, time: Float[Array, ""]) -> "Lowest":
        """After `value` at `time`: itself, or that where it is below this one by more than the share `fall`."""
        lower = value < self.value - fall * jnp.abs(self.value)
        return Lowest(jnp.where(lower, value, self.value), jnp.where(lower, jnp.maximum(time, self.time), self.time))

    def decades(self, time: Float[Array, ""]) -> Float[Array, ""]:
        """log10 of flow time over that of the lowest value; 0 before it."""
        return jnp.log10(jnp.maximum(time / self.time, 1.0))
