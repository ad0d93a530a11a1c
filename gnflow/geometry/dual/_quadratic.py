"""The direction of the quadratic model: damped generalised Gauss-Newton, with any number of iterations."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ...losses import AbstractLoss, AbstractOutputFactor
from .._spectrum import numerical_rank
from .._tangent import AbstractTangent
from ..directions import SolveDiagnostics
from ..directions._whitening import whitened_gram
from ._base import AbstractDirectionOracle, DualDirection
from ._conjugate_gradients import Solution, conjugate_gradients
from ._products import GramProducts, gram_products

# Where no number is given: more than a well-posed solve takes, so that an ill-posed one ends.
_MOST_ITERATIONS = 1000


class QuadraticOracle(AbstractDirectionOracle):
    """d = -(J^T H J + I/gamma)^(-1) J^T g with the Hessian H of the loss at f: q_n is the quadratic model of l_n.

    With H = R R^T the dual variables are alpha/N = g + R z, in the image of H beside g, so that a singular H (softmax,
    Huber) is no obstacle: (I + gamma R^T A R) z = -gamma R^T A g, a positive definite system. Conjugate gradients from
    z = 0 are on the way from the gradient direction, which is zero iterations, to d, and every iterate is a descent
    direction (docs/dual.md). They stop at a relative residual of `tol`. With `max_iterations=None` and the dense A
    the system is solved directly, by Cholesky, to rounding whatever `tol`.

    **Diagnostics:** `damping` 1/gamma, the eps of `GaussNewtonFlow("hessian", Constant(eps))`; `relative_residual` of
    the system for z; `duality_gap` = ||residual||^2/2, what the primal objective can still fall by at most;
    `iterations` (None for a direct solve); `rank`: the pivots above the rank cut-off of a direct solve, else the
    iterations. `success` is False where the iterations did not meet the tolerance although no number of them was
    given, and where numbers are not finite.
    """

    max_iterations: int | None = eqx.field(static=True, default=None)
    tol: float | Float[Array, ""] = 1e-8
    products: Literal["auto", "matrix_free", "dense"] = eqx.field(static=True, default="auto")

    def solve(
        self,
        tangent: AbstractTangent,
        loss: AbstractLoss,
        targets: Float[Array, "samples outputs"],
        gamma: Float[Array, ""] | float,
        initial: Float[Array, "samples outputs"] | None = None,
    ) -> DualDirection:
        """The direction; `initial` is not needed by, and changes nothing of, a direct solve."""
        strength = jnp.asarray(gamma, dtype=jnp.float64)
        gradient = loss.gradient(tangent.outputs, targets)
        factor = loss.hessian_factor(tangent.outputs, targets)
        product = gram_products(tangent, self.products, self.max_iterations)
        if self.max_iterations is None and product.gram is not None:
            solution, rank = _direct(product, factor, gradient, strength)
            iterations = None
        else:
            start = None if initial is None else factor.whiten(initial / initial.shape[0] - gradient)
            most = _MOST_ITERATIONS if self.max_iterations is None else self.max_iterations
            solution = conjugate_gradients(product, factor, gradient, strength, self.tol, most, start)
            rank = iterations = solution.iterations
        size = jnp.linalg.norm(solution.residual)
        nothing = solution.scale == 0
        residual = jnp.where(nothing, 0.0, size / jnp.where(nothing, 1.0, solution.scale))
        success = jnp.isfinite(size)
        if self.max_iterations is None and iterations is not None:
            success = success & (size <= self.tol * solution.scale)
        diagnostics = SolveDiagnostics(
            damping=1 / strength,
            rank=rank,
            relative_residual=residual,
            success=success,
            iterations=iterations,
            duality_gap=size**2 / 2,
        )
        coefficients = gradient + factor.product(solution.whitened)
        return DualDirection(coefficients * gradient.shape[0], tangent.outputs, strength, diagnostics)


def _direct(
    product: GramProducts,
    factor: AbstractOutputFactor,
    gradient: Float[Array, "samples outputs"],
    gamma: Float[Array, ""],
) -> tuple[Solution, Array]:
    """z by a Cholesky factorisation of I + gamma R^T A R, and the number of its pivots that are no rounding."""
    assert product.gram is not None
    whitened = whitened_gram(product.gram, factor, gradient.shape[1])
    matrix = jnp.eye(whitened.shape[0]) + gamma * whitened
    right = -gamma * factor.transpose_product(product(gradient))
    triangle = jnp.linalg.cholesky(matrix)
    solved = jsl.cho_solve((triangle, True), right.reshape(-1))
    residual = right - (matrix @ solved).reshape(right.shape)
    rank = numerical_rank(jnp.nan_to_num(jnp.diagonal(triangle) ** 2, nan=0.0))
    solution = Solution(solved.reshape(right.shape), residual, jnp.linalg.norm(right), jnp.zeros((), dtype=int))
    return solution, rank
