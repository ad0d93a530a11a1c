"""The time within a step at which a stop rule is met."""

from typing import Any

import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool

_LAST_DIGITS = 4 * float(jnp.finfo(jnp.float64).eps)


class StopTimeBisection(optx.Bisection):
    """Bisection that also ends when the interval is down to the last digits of the time.

    Near its root a margin may be known less well than the tolerance: outputs that are small differences of large numbers have
    a loss with few digits. It then changes its sign without coming within the tolerance of zero, and the search would go on
    until it has used up its steps.
    """

    def terminate(
        self, fn: Any, y: Any, args: Any, options: dict[str, Any], state: Any, tags: frozenset[object]
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:
        """Whether time and margin are within tolerance, or the interval cannot be divided further."""
        done, result = super().terminate(fn, y, args, options, state, tags)
        return done | (jnp.abs(state.upper - state.lower) <= _LAST_DIGITS * jnp.abs(y)), result
