"""Conditions that fix the values of a model."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._derivatives import derivative, scalar


class Fixed(eqx.Module):
    """u(x) - u*(x) at a point that comes with its value: the residual of points (x, u*)."""

    def __call__(self, model: Any, point: tuple[Float[Array, " d"], Float[Array, ""]]) -> Float[Array, ""]:
        x, value = point
        return scalar(model)(x) - value


class Vanishing(eqx.Module):
    """u(x), for conditions u = 0."""

    def __call__(self, model: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
        return scalar(model)(x)


class Periodic(eqx.Module):
    """u and its derivative at one end of the first coordinate less those at the other, (2,).

    **Arguments:** `low`, `high`: the ends.
    """

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __call__(self, model: Any, x: Float[Array, " d"]) -> Float[Array, " 2"]:
        field = scalar(model)
        left, right = x.at[0].set(self.low), x.at[0].set(self.high)
        slope = derivative(field, left, 0) - derivative(field, right, 0)
        return jnp.stack([field(left) - field(right), slope])
