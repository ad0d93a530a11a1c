"""Conjugate gradients for (I + gamma H A) a = g, every iterate of which is a descent direction."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...losses import AbstractOutputFactor
from ._products import GramProducts


class Solution(eqx.Module):
    """A solution of M z = b, and how good it is.

    **Attributes:**

    - `whitened`: z (N, C), with a = g + R z.
    - `residual`: b - M z (N, C).
    - `scale`: ||b||.
    - `slope`: -<d, J^T g>, the rate at which the objective falls along d at first.
    - `iterations`: their number.
    """

    whitened: Float[Array, "samples outputs"]
    residual: Float[Array, "samples outputs"]
    scale: Float[Array, ""]
    slope: Float[Array, ""]
    iterations: Int[Array, ""]


class _State(eqx.Module):
    whitened: Float[Array, "samples outputs"]
    residual: Float[Array, "samples outputs"]
    search: Float[Array, "samples outputs"]
    image: Float[Array, "samples outputs"]  # B times the search direction
    square: Float[Array, ""]  # <r, B r>
    iterations: Int[Array, ""]
    stuck: Bool[Array, ""]
    descending: tuple[
        Float[Array, "samples outputs"], Float[Array, "samples outputs"]
    ]  # the last z whose direction descends, and its residual


def conjugate_gradients(
    product: GramProducts,
    factor: AbstractOutputFactor,
    gradient: Float[Array, "samples outputs"],
    gamma: Float[Array, ""],
    tol: Float[Array, ""] | float,
    max_iterations: int,
    initial: Float[Array, "samples outputs"] | None = None,
    relative_to: Literal["right_side", "decrease"] = "right_side",
) -> Solution:
    """Minimise the primal objective over a in g + R (Krylov space), by one product with A per iteration.

    With B = R^T A R and M = I + gamma B the dual variables z solve M z = b = -gamma R^T A g. M is symmetric also in the inner
    product <x, y>_B = x^T B y, and the iteration uses this one. The error that it minimises, ||z - z*|| in the norm of B M, is
    up to a constant the primal objective at d = -gamma J^T (g + R z); ordinary conjugate gradients minimise the dual one. So
    the direction is the best in its space and each iteration improves it, without more products. (lineax's conjugate
    gradients have the ordinary inner product only.)

    In exact arithmetic every iterate is a descent direction. If M is ill-conditioned, rounding destroys the orthogonality of
    the iterations, and a direction that is cut off may ascend; so may one that starts from `initial`. The last iterate that
    descends is returned.

    **Arguments:**

    - `product`: v -> A v.
    - `factor`: R.
    - `gradient`: g (N, C).
    - `gamma`: > 0.
    - `tol`: the norm of the residual at which to stop, relative to `relative_to`.
    - `max_iterations`: the largest number of iterations.
    - `initial`: z to start from, if its residual is smaller than that of z = 0.
    - `relative_to`: "right_side" for ||b||; "decrease" for the square root of the objective's slope along d. At the end
      this slope is twice the decrease, and ||residual||^2/2 is the duality gap, so that "decrease" bounds the missing
      fraction of the decrease. If gamma ||A|| is large, ||b|| is of that size and says nothing about the other modes.
    """
    pulled = product(gradient)
    right = -gamma * factor.transpose_product(pulled)
    steepest = gamma * jnp.sum(gradient * pulled)
    scale = jnp.linalg.norm(right)
    whitened, residual = jnp.zeros_like(right), right
    if initial is not None:
        finite = jnp.where(jnp.all(jnp.isfinite(initial)), initial, 0.0)
        other = right - finite - gamma * factor.transpose_product(product(factor.product(finite)))
        better = jnp.linalg.norm(other) < scale
        whitened, residual = jnp.where(better, finite, whitened), jnp.where(better, other, residual)

    def slope(whitened: Array) -> Float[Array, ""]:
        """-<d, grad L> = gamma g^T A (g + R z)."""
        return steepest - jnp.sum(right * whitened)

    def goes_on(state: _State) -> Bool[Array, ""]:
        size = scale if relative_to == "right_side" else jnp.sqrt(jnp.maximum(slope(state.whitened), 0.0))
        unsolved = jnp.linalg.norm(state.residual) > tol * size
        return unsolved & (state.iterations < max_iterations) & ~state.stuck

    def iterate(state: _State) -> _State:
        image_of_residual = factor.transpose_product(product(factor.product(state.residual)))
        square = jnp.sum(state.residual * image_of_residual)
        ratio = jnp.where(state.iterations > 0, square / state.square, 0.0)
        search = state.residual + ratio * state.search
        # B times the search direction follows from what is known, without another product.
        image = image_of_residual + ratio * state.image
        mapped = search + gamma * image
        curvature = jnp.sum(image * mapped)
        # These are positive until only rounding is left of the residual.
        stuck = ~((curvature > 0) & (square > 0))
        step = jnp.where(stuck, 0.0, square / jnp.where(stuck, 1.0, curvature))
        whitened, residual = state.whitened + step * search, state.residual - step * mapped
        down = slope(whitened) >= 0
        return _State(
            whitened=whitened,
            residual=residual,
            search=search,
            image=image,
            square=jnp.where(stuck, 1.0, square),
            iterations=state.iterations + jnp.where(stuck, 0, 1),
            stuck=stuck,
            descending=(
                jnp.where(down, whitened, state.descending[0]),
                jnp.where(down, residual, state.descending[1]),
            ),
        )

    down = slope(whitened) >= 0
    descending = jnp.where(down, whitened, 0.0), jnp.where(down, residual, right)
    first = _State(
        whitened=whitened,
        residual=residual,
        search=jnp.zeros_like(right),
        image=jnp.zeros_like(right),
        square=jnp.ones(()),
        iterations=jnp.zeros((), dtype=int),
        stuck=jnp.zeros((), dtype=bool),
        descending=descending,
    )
    last = jax.lax.while_loop(goes_on, iterate, first)
    whitened, residual = last.descending
    return Solution(whitened, residual, scale, slope(whitened), last.iterations)
