"""The abstract base of damping rules."""

import abc
import math
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

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
