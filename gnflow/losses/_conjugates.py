"""What the Fenchel conjugates of several losses share."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Dual variables are differences p - y of numbers up to one: this many units in the last place of one are rounding.
_ROUNDING = 8 * float(jnp.finfo(jnp.float64).eps)


def rounding(alpha: Float[Array, "N C"]) -> float:
    """How far rounding may take a sum over the outputs of one sample beyond the domain of a conjugate."""
    return _ROUNDING * alpha.shape[1]


def log_shifted(alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """log(y + alpha), accurate also where y + alpha is nearly one; -inf at 0 and, by rounding, below."""
    near_one = y > 0.5
    above = jnp.maximum(alpha + (y - 1), -1.0)  # p - 1: for y = 1 it is alpha itself
    below = jnp.maximum(alpha + y, 0.0)
    return jnp.where(near_one, jnp.log1p(jnp.where(near_one, above, 0.0)), jnp.log(jnp.where(near_one, 1.0, below)))


def times_logarithm(p: Float[Array, "N C"], log_p: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """p log p, 0 at p = 0 (and where rounding made p negative)."""
    inside = p > 0
    return jnp.where(inside, p * jnp.where(inside, log_p, 0.0), 0.0)


def where_in_domain(inside: Bool[Array, " N"], values: Float[Array, " N"]) -> Float[Array, " N"]:
    """The samples' values inside the domain of the conjugate, infinity outside."""
    return jnp.where(inside, values, jnp.inf)
