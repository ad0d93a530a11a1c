"""Damping as a function of flow time."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import ConfigError, number_field, on_one_line, shown
from ._base import AbstractDamping
from ._spectrum import Spectrum


class Exponential(AbstractDamping):
    """eps(t) = max(floor, start * exp(-rate t)): damping that decays during training.

    **Arguments:**

    - `start`: >= 0, in units of H A.
    - `rate`: >= 0, in 1/flow time.
    - `floor`: >= 0, in units of H A.

    **Raises:** `ConfigError` if one of them is negative.
    """

    has_jumps: ClassVar[bool] = False

    start: float = number_field("Exponential: start", least=0.0)
    rate: float = number_field("Exponential: rate", least=0.0)
    floor: float = number_field("Exponential: floor", default=0.0, least=0.0)

    @property
    def is_positive(self) -> bool:
        """Whether the floor is positive: without a floor eps underflows to 0 in the end."""
        return bool(self.floor > 0)

    @property
    def is_zero(self) -> bool:
        """Whether start and floor are zero."""
        return bool(self.start == 0 and self.floor == 0)

    def largest_ratio(self, smallest_eigenvalue: float) -> float:
        """max(start, floor)/sigma: eps falls from start to the floor."""
        return max(float(self.start), float(self.floor)) / smallest_eigenvalue

    def __call__(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """max(floor, start exp(-rate t))."""
        return jnp.maximum(self.floor, self.start * jnp.exp(-self.rate * time))


def _as_schedule(function: Any) -> Any:
    """`function`, if JAX can trace it from a time to a number. **Raises:** `ConfigError`."""
    expected = "expected a JAX function from a time to a number, such as lambda t: 1 / (1 + t)"
    if not callable(function):
        raise ConfigError(f"Schedule({shown(function)}); {expected}.")
    try:
        value = jax.eval_shape(lambda time: jnp.asarray(function(time)), jax.ShapeDtypeStruct((), jnp.float64))
    except Exception as error:
        said = on_one_line(error)
        raise ConfigError(
            f"the function of Schedule cannot be traced by JAX ({type(error).__name__}: {said}); {expected}, with jnp.where in "
            "place of if."
        ) from error
    if value.shape != () or jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise ConfigError(f"the function of Schedule gives an array of shape {value.shape}, {value.dtype}; {expected}.")
    return function


class Schedule(AbstractDamping):
    """eps(t) = function(t).

    Where the function is negative or nan the direction is nan, and the run ends as a failure. A run with such a damping is
    saved, but to load it the flow must be passed again.

    **Arguments:** `function`: any JAX function from flow time to a number >= 0, in units of H A. It may jump.

    **Raises:** `ConfigError` unless JAX can trace `function` from a scalar to a scalar.
    """

    function: Callable[[Float[Array, ""]], Float[Array, ""]] = eqx.field(static=True, converter=_as_schedule)

    def __call__(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """function(t), or nan where that is negative."""
        value = jnp.asarray(self.function(time), dtype=jnp.float64)
        return jnp.where(value >= 0, value, jnp.nan)
