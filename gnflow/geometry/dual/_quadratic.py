"""The direction of the quadratic model: damped generalised Gauss-Newton, with any number of iterations."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...losses import AbstractLoss
from .._tangent import AbstractTangent
from ..directions import SolveDiagnostics
from ._base import AbstractDualOracle, DualDirection, relative_gap
from ._conjugate_gradients import conjugate_gradients
from ._direct import direct_solution
from ._products import gram_products

# The largest number of iterations if none is given: more than a well-posed solve takes, so that an ill-posed one ends.
_MOST_ITERATIONS = 1000


class QuadraticOracle(AbstractDualOracle):
    """d = -(J^T H J + I/gamma)^(-1) J^T g with the Hessian H of the loss at f: q_n is the quadratic model of l_n.

    With H = R R^T the dual variables are alpha/N = g + R z, where (I + gamma R^T A R) z = -gamma R^T A g. This system is
    positive definite also for a singular H (softmax, Huber). Conjugate gradients from z = 0 go from the gradient direction
    (zero iterations) to d, and every iterate is a descent direction (docs/dual.md). They stop at a relative residual of `tol`.
    With `max_iterations=None` and a dense A the system is solved directly, by Cholesky, to rounding for every `tol`.

    **Arguments:**

    - `max_iterations`: the number of iterations, at least 0, or None to continue to the tolerance.
    - `tol`: the relative residual at which the iterations stop.
    - `products`: as for every `AbstractDualOracle`.

    **Diagnostics:**

    - `damping`: 1/gamma, the eps of `GaussNewtonFlow("hessian", Constant(eps))`.
    - `rank`: the number of pivots above the rank cut-off for a direct solve, otherwise the number of iterations.
    - `relative_residual`: that of the system for z.
    - `success`: False if numbers are not finite. With `max_iterations=None` also if the iterations did not reach the tolerance.
    - `iterations`: their number; None for a direct solve.
    - `duality_gap`: how much the primal objective can still fall at most, ||residual||^2/2.
    - `relative_duality_gap`: this as a fraction of the largest possible decrease.
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
        """The direction; a direct solve ignores `initial`."""
        strength = jnp.asarray(gamma, dtype=jnp.float64)
        gradient = loss.gradient(tangent.outputs, targets)
        factor = loss.hessian_factor(tangent.outputs, targets)
        product = gram_products(tangent, self.products, self.max_iterations)
        if self.max_iterations is None and product.gram is not None:
            solution, rank = direct_solution(product, factor, gradient, strength)
            iterations = None
        else:
            # The z of alpha/N = g + R z.
            start = None if initial is None else factor.whiten(initial / initial.shape[0] - gradient)
            most = _MOST_ITERATIONS if self.max_iterations is None else self.max_iterations
            solution = conjugate_gradients(product, factor, gradient, strength, self.tol, most, start)
            rank = iterations = solution.iterations
        size = jnp.linalg.norm(solution.residual)
        nothing = solution.scale == 0
        residual = jnp.where(nothing, 0.0, size / jnp.where(nothing, 1.0, solution.scale))
        # L(f) - P(d) without another product with A, since R^T J d = z + r.
        decrease = (solution.slope - jnp.sum(solution.residual * (solution.whitened + solution.residual))) / 2
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
            relative_duality_gap=relative_gap(size**2 / 2, decrease),
        )
        coefficients = gradient + factor.product(solution.whitened)
        return DualDirection(coefficients * gradient.shape[0], tangent.outputs, strength, diagnostics)

    def decrease(
        self,
        loss: AbstractLoss,
        outputs: Float[Array, "samples outputs"],
        targets: Float[Array, "samples outputs"],
        change: Float[Array, "samples outputs"],
    ) -> Float[Array, ""]:
        """-<g, u> - ||R^T u||^2/2."""
        slope, curvature = _along(loss, outputs, targets, change)
        return slope - curvature / 2

    def length(
        self,
        loss: AbstractLoss,
        outputs: Float[Array, "samples outputs"],
        targets: Float[Array, "samples outputs"],
        change: Float[Array, "samples outputs"],
        ridge: Float[Array, ""],
    ) -> Float[Array, ""]:
        """-<g, J d>/(||R^T J d||^2 + ||d||^2/gamma), in closed form."""
        slope, curvature = _along(loss, outputs, targets, change)
        curvature = curvature + ridge
        return jnp.where(curvature > 0, jnp.maximum(slope, 0.0) / jnp.where(curvature > 0, curvature, 1.0), 0.0)


def _along(
    loss: AbstractLoss,
    outputs: Float[Array, "samples outputs"],
    targets: Float[Array, "samples outputs"],
    change: Float[Array, "samples outputs"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """-<g, u> and <u, H u> = ||R^T u||^2: how fast the quadratic model falls along u, and how it is curved."""
    curved = loss.hessian_factor(outputs, targets).transpose_product(change)
    return -jnp.sum(loss.gradient(outputs, targets) * change), jnp.sum(curved**2)
