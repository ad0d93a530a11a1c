"""What a damping rule is."""

import abc
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float


class AbstractDamping(eqx.Module):
    """A rule for eps >= 0 in (H A + eps I)^(-1), as a function of flow time and of sigma_min, A's smallest eigenvalue.

    **Attributes:** `needs_smallest_eigenvalue`: whether the rule reads sigma_min; a direction solver that cannot provide it
    refuses such a rule; `has_jumps`: whether eps may jump in time, True, which is always safe, for a rule that does not say.
    """

    needs_smallest_eigenvalue: ClassVar[bool]
    has_jumps: ClassVar[bool] = True

    @property
    def is_positive(self) -> bool:
        """Whether eps > 0 at all times and for every spectrum; a rule that cannot tell says False."""
        return False

    @abc.abstractmethod
    def __call__(self, time: Float[Array, ""], smallest_eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
        """eps at flow time `time`, where A's smallest eigenvalue is `smallest_eigenvalue` (not negative)."""
