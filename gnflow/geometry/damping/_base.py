"""What a damping rule is."""

import abc
import math
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float


class AbstractDamping(eqx.Module):
    """A rule for eps >= 0 in (H A + eps I)^(-1), as a function of flow time, of sigma_min, A's smallest eigenvalue, and of
    sigma_max, the largest of H A.

    **Attributes:** `needs_smallest_eigenvalue`: whether the rule reads sigma_min; a direction solver that cannot provide it
    refuses such a rule; `needs_largest_eigenvalue`: whether it reads sigma_max, which every solver can provide; `has_jumps`:
    whether eps may jump in time, True, which is always safe, for a rule that does not say.
    """

    needs_smallest_eigenvalue: ClassVar[bool]
    needs_largest_eigenvalue: ClassVar[bool] = False
    has_jumps: ClassVar[bool] = True

    @property
    def is_positive(self) -> bool:
        """Whether eps > 0 at all times and for every spectrum; a rule that cannot tell says False."""
        return False

    @abc.abstractmethod
    def __call__(
        self,
        time: Float[Array, ""],
        smallest_eigenvalue: Float[Array, ""],
        largest_eigenvalue: Float[Array, ""] | float = math.nan,
    ) -> Float[Array, ""]:
        """eps at flow time `time`.

        **Arguments:** `smallest_eigenvalue`: of A, not negative; `largest_eigenvalue`: of H A, not negative. A number of
        no meaning stands for one that the rule says it does not need.
        """
