"""The abstract base of damping rules."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import ConfigError, GnflowError, is_own_class, on_one_line, shown
from ._spectrum import Spectrum


class AbstractDamping(eqx.Module):
    """A rule for eps >= 0 in (H A + eps I)^(-1): a function of flow time and of the spectrum.

    The defaults of its attributes and properties are always safe.

    **Attributes:**

    - `has_jumps`: whether eps may jump in time; True by default.
    - `depends_on_time`: whether eps depends on time other than through the spectrum; True by default.
    - `is_smooth`: whether eps is infinitely differentiable in time and spectrum; False by default.
    """

    has_jumps: ClassVar[bool] = True
    depends_on_time: ClassVar[bool] = True
    is_smooth: ClassVar[bool] = False

    @property
    def is_positive(self) -> bool:
        """Whether eps > 0 at all times and for every spectrum; False if that is not known."""
        return False

    @property
    def is_zero(self) -> bool:
        """Whether eps = 0 at all times and for every spectrum; False if that is not known."""
        return False

    def largest_ratio(self, smallest_eigenvalue: float) -> float:
        """The smallest known a such that eps <= a sigma_min at all times, if sigma_min >= `smallest_eigenvalue`.

        **Arguments:** `smallest_eigenvalue`: > 0, in units of A.

        **Returns:** a, dimensionless; infinity by default.
        """
        return math.inf

    @abc.abstractmethod
    def __call__(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """eps, in units of H A.

        **Arguments:**

        - `time`: flow time.
        - `spectrum`: the eigenvalues; only what the rule reads is computed.

        **Raises:** `ConfigError` if the direction solver cannot provide what the rule reads.
        """

    def shift(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """eps as direction solvers add it: what the rule gives, or nan where a rule of the user's gives less than 0.

        **Arguments:** those of the rule.

        **Raises:** `ConfigError` if the rule is the user's and raises an error, or gives no number.
        """
        if is_own_class(type(self)):
            return self(time, spectrum)
        name = type(self).__name__
        expected = (
            f"expected {name}.__call__(self, time, spectrum) that gives a number of at least 0, by JAX operations (jnp.where "
            "in place of if), from time and spectrum.smallest, spectrum.largest, spectrum.trace or spectrum.all"
        )
        try:
            given = self(time, spectrum)
        except GnflowError:
            raise
        except Exception as error:
            said = on_one_line(error)
            raise ConfigError(
                f"the damping rule {name} cannot be evaluated ({type(error).__name__}: {said}); {expected}."
            ) from error
        is_real = isinstance(given, int | float | np.number | jax.Array) and not isinstance(given, bool)
        if not is_real or jnp.shape(given) != () or jnp.result_type(given).kind not in "fiu":
            raise ConfigError(f"the damping rule {name} gives {shown(given)}; {expected}.")
        value = jnp.asarray(given, dtype=jnp.float64)
        return jnp.where(value >= 0, value, jnp.nan)
