"""The matrix-free solver, for more outputs than a dense Gram matrix allows."""

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ..._core import ConfigError
from ...losses import AbstractOutputFactor
from .._tangent import AbstractTangent
from ..damping import AbstractDamping
from ._base import AbstractDirectionSolver, Direction, SolveDiagnostics, relative_residual
from ._modes import Decomposition, Modes
from ._unseen import coefficients, right_hand_side


class ConjugateGradients(AbstractDirectionSolver):
    """Conjugate gradients (lineax) on R^T J J^T R + eps I: one J and one J^T product an iteration, nothing of size NC x NC.

    The number of iterations grows with the square root of the condition number, so damp: an ill-conditioned A without
    damping is better served by `TruncatedEigh` as long as NC allows.

    **Arguments:** `rtol`: the largest entry that the residual may keep, relative to the norm of the right-hand side;
    `max_steps`: iterations allowed.
    """

    rtol: float = 1e-10
    max_steps: int = 1000

    def never_ascends(self, sees_gradient: bool) -> bool:
        """Where all of g is in the image of H every iterate is one of descent (docs/theory.md, exact fact 5)."""
        return sees_gradient

    def solve(
        self,
        tangent: AbstractTangent,
        factor: AbstractOutputFactor,
        whitened_gradient: Float[Array, "samples outputs"],
        damping: AbstractDamping,
        time: Float[Array, ""],
        unseen_gradient: Float[Array, "samples outputs"] | None = None,
    ) -> Direction:
        """The direction; `success` is False where the iterations ended before the tolerance was met."""
        if damping.needs_smallest_eigenvalue:
            raise ConfigError(
                f"{type(damping).__name__} damping reads the smallest eigenvalue of the Gram matrix, which ConjugateGradients "
                "does not form; use damping.Constant or a schedule, or the direction solver TruncatedEigh."
            )
        shift = damping(time, jnp.zeros(()))

        def product(vector: Array) -> Array:
            return factor.transpose_product(tangent.jvp(tangent.vjp(factor.product(vector)))) + shift * vector

        right = right_hand_side(
            whitened_gradient, unseen_gradient, factor, shift, lambda v: tangent.jvp(tangent.vjp(v))
        )
        # lineax measures convergence entry by entry; where the right-hand side is zero (an output that the metric does not
        # see) its relative tolerance alone is 0/0, which ends the iterations at once as if they had converged. On a
        # right-hand side of norm one the same number serves as absolute tolerance.
        norm = jnp.linalg.norm(right)
        unit = right / jnp.where(norm > 0, norm, 1.0)
        operator = lx.FunctionLinearOperator(product, unit, lx.positive_semidefinite_tag)
        solver = lx.CG(rtol=self.rtol, atol=self.rtol, max_steps=self.max_steps)
        answer = lx.linear_solve(operator, unit, solver, throw=False)
        solution = norm * answer.value
        return Direction(
            coefficients=coefficients(solution, unseen_gradient, factor, shift),
            diagnostics=SolveDiagnostics(
                damping=shift,
                rank=jnp.asarray(answer.stats["num_steps"]),
                relative_residual=relative_residual(product(solution) - right, right),
                success=answer.result == lx.RESULTS.successful,
            ),
        )

    def solve_and_decompose(
        self,
        tangent: AbstractTangent,
        factor: AbstractOutputFactor,
        whitened_gradient: Float[Array, "samples outputs"],
        damping: AbstractDamping,
        time: Float[Array, ""],
        decomposition: Decomposition,
        unseen_gradient: Float[Array, "samples outputs"] | None = None,
    ) -> tuple[Direction, Modes]:
        """The direction and the leading modes: beyond their number the dense Gram matrix is not formed here either."""
        matrix_free = Decomposition(0, decomposition.rank, decomposition.power)
        return super().solve_and_decompose(
            tangent, factor, whitened_gradient, damping, time, matrix_free, unseen_gradient
        )
