"""Account in a direction solve for the part of a gradient that a singular output metric does not see."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...losses import AbstractOutputFactor


def right_hand_side(
    whitened: Float[Array, "samples outputs"],
    unseen: Float[Array, "samples outputs"] | None,
    factor: AbstractOutputFactor,
    shift: Float[Array, ""],
    gram_product: Callable[[Array], Array],
) -> Float[Array, "samples outputs"]:
    """The right-hand side of (R^T A R + eps) z = b for a gradient g = R h + u: b = h - R^T A u / eps, or h if eps = 0.

    **Arguments:**

    - `whitened`: h (N, C).
    - `unseen`: u (N, C), or None if it is zero.
    - `factor`: R.
    - `shift`: eps.
    - `gram_product`: v -> A v on (N, C).
    """
    if unseen is None:
        return whitened
    return whitened - factor.transpose_product(gram_product(_over_damping(unseen, shift)))


def coefficients(
    solution: Float[Array, "samples outputs"],
    unseen: Float[Array, "samples outputs"] | None,
    factor: AbstractOutputFactor,
    shift: Float[Array, ""],
) -> Float[Array, "samples outputs"]:
    """a = R z + u / eps, or R z if eps = 0. So (R R^T A + eps) a = R b + R R^T A u / eps + u = R h + u."""
    product = factor.product(solution)
    return product if unseen is None else product + _over_damping(unseen, shift)


def _over_damping(unseen: Float[Array, "samples outputs"], shift: Float[Array, ""]) -> Float[Array, "samples outputs"]:
    # Without damping the metric does not say how far the unseen part should move, so it does not move.
    return jnp.where(shift > 0, unseen / jnp.where(shift > 0, shift, 1.0), 0.0)
