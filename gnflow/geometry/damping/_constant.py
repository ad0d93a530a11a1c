"""Constant damping."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import number_field
from ._base import AbstractDamping
from ._spectrum import Spectrum


class Constant(AbstractDamping):
    """eps = value: Levenberg-Marquardt with a fixed parameter (0 gives undamped Gauss-Newton).

    **Arguments:** `value`: eps >= 0, in units of H A (of A for the identity metric).

    **Raises:** `ConfigError` if it is negative.
    """

    has_jumps: ClassVar[bool] = False
    depends_on_time: ClassVar[bool] = False
    is_smooth: ClassVar[bool] = True

    value: float = number_field("Constant: value", least=0.0)

    @property
    def is_positive(self) -> bool:
        """Whether the value is positive."""
        return bool(self.value > 0)

    @property
    def is_zero(self) -> bool:
        """Whether the value is zero."""
        return bool(self.value == 0)

    def largest_ratio(self, smallest_eigenvalue: float) -> float:
        """value/sigma."""
        return float(self.value) / smallest_eigenvalue

    def __call__(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """eps, at all times and for every spectrum."""
        return jnp.asarray(self.value, dtype=jnp.float64)
