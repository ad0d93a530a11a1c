"""Damping that is a multiple of a number of the spectrum, with a floor."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._base import AbstractDamping
from ._spectrum import Spectrum


class AbstractMultiple(AbstractDamping):
    """eps = max(floor, factor * s) with a number s of the spectrum, which may be 0 or underflow to it."""

    has_jumps: ClassVar[bool] = False
    depends_on_time: ClassVar[bool] = False

    factor: eqx.AbstractVar[float]
    floor: eqx.AbstractVar[float]

    @abc.abstractmethod
    def of_spectrum(self, spectrum: Spectrum) -> Float[Array, ""]:
        """s >= 0."""

    @property
    def is_positive(self) -> bool:
        """Whether the floor is positive."""
        return bool(self.floor > 0)

    @property
    def is_zero(self) -> bool:
        """Whether factor and floor are zero."""
        return bool(self.factor == 0 and self.floor == 0)

    def __call__(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """max(floor, factor * s)."""
        return jnp.maximum(self.floor, self.factor * self.of_spectrum(spectrum))
