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
    whether eps may jump in time, `depends_on_time`: whether it depends on time otherwise than through the spectrum; both
    True, which is always safe, for a rule that does not say; `is_smooth`: whether eps is infinitely differentiable in time and
    spectrum, False for a rule that does not say.
    """

    needs_smallest_eigenvalue: ClassVar[bool]
    needs_largest_eigenvalue: ClassVar[bool] = False
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
