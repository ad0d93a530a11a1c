"""Damping as a function of flow time."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import ConfigError, require_non_negative
from ._base import AbstractDamping


class Exponential(AbstractDamping):
    """eps(t) = max(floor, start * exp(-rate t)): damping that is lifted as training goes on.

    **Arguments:** `start` >= 0 and `floor` >= 0, in units of H A; `rate` >= 0 per unit of flow time.
    **Raises:** `ConfigError` if one is negative.
    """

    needs_smallest_eigenvalue: ClassVar[bool] = False

    start: float
    rate: float
    floor: float = 0.0

    def __check_init__(self):
        require_non_negative(ConfigError, start=self.start, rate=self.rate, floor=self.floor)

    @property
    def is_positive(self) -> bool:
        """Whether the floor is: without one eps underflows to 0 in the end."""
        return bool(self.floor > 0)

    def __call__(self, time: Float[Array, ""], smallest_eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        """max(floor, start exp(-rate t))."""
        return jnp.maximum(self.floor, self.start * jnp.exp(-self.rate * time))


class Schedule(AbstractDamping):
    """eps(t) = function(t), any JAX function of flow time with values of at least zero.

    A run whose damping is a function of the user's is saved, but to load it the flow must be passed again.
    """

    needs_smallest_eigenvalue: ClassVar[bool] = False

    function: Callable[[Float[Array, ""]], Float[Array, ""]] = eqx.field(static=True)

    def __call__(self, time: Float[Array, ""], smallest_eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        """function(t)."""
        return jnp.asarray(self.function(time), dtype=jnp.float64)
