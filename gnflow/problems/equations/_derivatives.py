"""Derivatives of a model in its inputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import DataError, require_integer

Field = Callable[[Array], Array]


def scalar(model: Any) -> Field:
    """The model of one output as a function from an input (d,) to a number, for `jax.grad` and the like."""
    return lambda x: jnp.reshape(model(x), ())


def derivative(field: Field, x: Float[Array, " d"], axis: int) -> Float[Array, ""]:
    """The derivative of a scalar field in one coordinate, by forward mode."""
    return jax.jvp(field, (x,), (_along(x, axis),))[1]


def second_derivative(field: Field, x: Float[Array, " d"], axis: int) -> Float[Array, ""]:
    """The second derivative of a scalar field in one coordinate, by forward mode twice.

    **Arguments:**

    - `field`: a function from (d,) to a number.
    - `x`: the point (d,).
    - `axis`: the coordinate, from 0.

    **Raises:** `DataError` for a point of another shape, and for a coordinate that it does not have.
    """
    return jax.jvp(lambda y: derivative(field, y, axis), (x,), (_along(x, axis),))[1]


def laplacian(field: Field, x: Float[Array, " d"]) -> Float[Array, ""]:
    """The sum of the second derivatives in all coordinates: no mixed one is computed, as the trace of a Hessian would."""
    return sum((second_derivative(field, x, axis) for axis in range(x.shape[0])), start=jnp.zeros(()))


def _along(x: Array, axis: int) -> Array:
    if x.ndim != 1:
        raise DataError(f"the point has shape {x.shape}; expected (d,), such as jnp.reshape(x, (1,)) of a number.")
    # JAX drops what is set beyond the end of an array: derivatives in a coordinate that is not there would be zero.
    count, remedy = x.shape[0], "Coordinates are counted from 0."
    axis = require_integer(DataError, "axis", axis, least=-count, most=count - 1, remedy=remedy)
    return jnp.zeros_like(x).at[axis].set(1.0)
