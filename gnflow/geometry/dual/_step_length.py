"""The length of a step along a direction in which a convex function falls."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# The slope at which a step is accepted, relative to that at the start. In measurements a step nearer to the minimum saved no
# iterations, and one farther away cost some.
_ACCEPTED_SLOPE = 0.1

# Far more than a Newton step needs: a function that still falls there falls by rounding.
_LONGEST_STEP = 8.0

# Doublings and halvings together; they reach steps down to 1e-18.
_MOST_TRIES = 60


class _State(eqx.Module):
    low: Float[Array, ""]  # a step at which the function still falls
    high: Float[Array, ""]  # a step at which it rises
    step: Float[Array, ""]
    found: Bool[Array, ""]
    tries: Int[Array, ""]


def step_length(slope: Callable[[Float[Array, ""]], Float[Array, ""]]) -> Float[Array, ""]:
    """A step t >= 0 with phi(t) <= phi(0), near the minimum of a convex phi; 0 unless phi'(0) < 0.

    Only the slope of phi is evaluated, because differences of phi are rounding near the minimum. The first try is t = 1; then
    steps are doubled and halved until |phi'(t)| <= |phi'(0)|/10. Since phi' rises, phi(t) - phi(0) <= t (phi'(t/2) +
    phi'(t))/2, so a step beyond the minimum is accepted if this bound is not positive.

    **Arguments:** `slope`: t -> phi'(t).
    """
    first = slope(jnp.zeros(()))

    def goes_on(state: _State) -> Bool[Array, ""]:
        return ~state.found & (state.tries < _MOST_TRIES)

    def attempt(state: _State) -> _State:
        step = state.step
        here, halfway = slope(step), slope(step / 2)
        found = (jnp.abs(here) <= _ACCEPTED_SLOPE * jnp.abs(first)) & (halfway + here <= 0)
        falls = here <= 0
        found = found | (falls & (step >= _LONGEST_STEP))
        low, high = jnp.where(falls, step, state.low), jnp.where(falls, state.high, step)
        following = jnp.where(jnp.isinf(high), 2 * step, (low + high) / 2)
        return _State(jnp.where(found, step, low), high, following, found, state.tries + 1)

    start = _State(
        low=jnp.zeros(()),
        high=jnp.asarray(jnp.inf),
        step=jnp.ones(()),
        found=~(first < 0),
        tries=jnp.zeros((), dtype=int),
    )
    return jax.lax.while_loop(goes_on, attempt, start).low
