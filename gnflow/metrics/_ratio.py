"""Quotients that are defined at the start of a run."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def ratio(numerator: Float[Array, ""], denominator: Float[Array, ""]) -> Float[Array, ""]:
    """numerator / denominator of two numbers >= 0, with 0/0 = 0 (nothing has changed yet) and x/0 = inf."""
    nothing = (numerator == 0) & (denominator == 0)
    return jnp.where(nothing, 0.0, numerator / jnp.where(nothing, 1.0, denominator))
