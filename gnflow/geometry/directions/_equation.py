"""The equation of the Gauss-Newton direction at a state, which direction solvers solve."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from ...losses import AbstractOutputFactor
from .._tangent import AbstractTangent
from ..damping import AbstractDamping
from ._unseen import coefficients, right_hand_side


class DirectionEquation(eqx.Module):
    """(H A + eps I) a = g for the coefficients a of the direction -J^T a, with A = J J^T, H = R R^T and g = R h + u.

    **Attributes:**

    - `tangent`: the tangent on the training inputs, which has J and A.
    - `factor`: R.
    - `whitened_gradient`: h (N, C).
    - `damping`: the rule for eps.
    - `time`: flow time, for the rule.
    - `unseen_gradient`: u (N, C), the part of g outside the image of H, or None if H sees all of g.
    """

    tangent: AbstractTangent
    factor: AbstractOutputFactor
    whitened_gradient: Float[Array, "samples outputs"]
    damping: AbstractDamping
    time: Float[Array, ""]
    unseen_gradient: Float[Array, "samples outputs"] | None = None

    def right_hand_side(
        self, shift: Float[Array, ""], gram_product: Callable[[Array], Array]
    ) -> Float[Array, "samples outputs"]:
        """b (N, C) of the symmetric system (R^T A R + eps I) z = b.

        **Arguments:**

        - `shift`: eps.
        - `gram_product`: v -> A v on (N, C), which is called only if there is a u.
        """
        return right_hand_side(self.whitened_gradient, self.unseen_gradient, self.factor, shift, gram_product)

    def coefficients(
        self, solution: Float[Array, "samples outputs"], shift: Float[Array, ""]
    ) -> Float[Array, "samples outputs"]:
        """a (N, C) from z = `solution` and eps = `shift`."""
        return coefficients(solution, self.unseen_gradient, self.factor, shift)
