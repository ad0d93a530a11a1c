"""A loss that a function states."""

from collections.abc import Callable
from typing import Any, ClassVar, cast

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import ConfigError, DataError, name_of, require_number, shown
from ._base import AbstractLoss
from ._targets import real_targets

_Function = Callable[[Array, Array], Array]


class FunctionLoss(AbstractLoss):
    """L(f) = mean over the samples of function(f, y). Made by `from_function`.

    Derivatives come from automatic differentiation. Whoever takes the loss for a problem tries whether the value is a convex
    mean over samples.
    """

    has_users_value: ClassVar[bool] = True

    function: _Function = eqx.field(static=True)
    least: float | Callable[[Array], Array] = eqx.field(static=True)

    def canonical_targets(
        self, y_train: Any, y_test: Any = None
    ) -> tuple[Float[Array, "N C"], Float[Array, "n C"] | None]:
        """Floating numbers, (N,) or (N, C), as for the squared loss. **Raises:** as there."""
        return real_targets(y_train, y_test, self.name)

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return name_of(self.function)

    def value(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, ""]:
        """The function's value; the mean where it gives one for each sample. **Raises:** `DataError` for other shapes."""
        values = jnp.asarray(self.function(f, y))
        if values.ndim > 1:
            raise DataError(
                f"the loss {self.name} gives an array of shape {values.shape}; expected a number, the mean over samples, or "
                "one number for each sample: sum over the outputs."
            )
        return jnp.mean(values) if values.ndim == 1 else values

    def minimum(self, y: Float[Array, "N C"]) -> Float[Array, ""]:
        """The number that was given, or the function's value."""
        least = self.least(y) if callable(self.least) else self.least
        return jnp.asarray(least, dtype=jnp.float64)


def from_function(value: Any, *, minimum: Any) -> FunctionLoss:
    """A loss from one function, which serves every flow.

    **Arguments:**

    - `value`: a JAX function of outputs f and targets y, both (N, C) in float64, that gives L(f), the mean over the samples,
      or one number for each sample, (N,), whose mean is L(f). It has to be convex in f.
    - `minimum`: the infimum of L over all outputs: a number, or a function of y (N, C). It is asked for, because no derivative
      gives it, and stop rules and certificates use L - L*.

    A run with it is saved; to load it, pass its problem again (`gnflow.load(folder, problem=problem)`).

    **Raises:** `ConfigError` unless `value` is a function and `minimum` a number or a function. `gnflow.Problem` raises
    `DataError` for a value that is no convex mean over samples.
    """
    if not callable(value):
        raise ConfigError(f"value = {shown(value)}; expected a JAX function of outputs and targets, both (N, C).")
    if not callable(minimum):
        minimum = require_number(
            ConfigError, "minimum", minimum, remedy="It is the infimum of the loss over all outputs."
        )
    return FunctionLoss(cast(_Function, value), cast(float | Callable[[Array], Array], minimum))
