"""What a damping rule is."""

import abc
import math
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ._spectrum import Spectrum


class AbstractDamping(eqx.Module):
    """A rule for eps >= 0 in (H A + eps I)^(-1), as a function of flow time and of what it reads of the spectrum.

    **Attributes:**

    - `has_jumps`: whether eps may jump in time; True, which is always safe, for a rule that does not say.
    - `depends_on_time`: whether it depends on time otherwise than through the spectrum; True for a rule that does not say.
    - `is_smooth`: whether eps is infinitely differentiable in time and spectrum; False for a rule that does not say.
    """

    has_jumps: ClassVar[bool] = True
    depends_on_time: ClassVar[bool] = True
    is_smooth: ClassVar[bool] = False

    @property
    def is_positive(self) -> bool:
        """Whether eps > 0 at all times and for every spectrum; a rule that cannot tell says False."""
        return False

    @property
    def is_zero(self) -> bool:
        """Whether eps = 0 at all times and for every spectrum; a rule that cannot tell says False."""
        return False

    def largest_ratio(self, smallest_eigenvalue: float) -> float:
        """The least known a with eps <= a sigma_min at all times, wherever sigma_min is at least `smallest_eigenvalue` > 0, in
        the unit of A; infinite for a rule that does not say."""
        return math.inf

    @abc.abstractmethod
    def __call__(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """eps, in units of H A.

        **Arguments:**

        - `time`: flow time.
        - `spectrum`: what is not read of it is not computed.

        **Raises:** `ConfigError` where the direction solver does not know what the rule reads.
        """
