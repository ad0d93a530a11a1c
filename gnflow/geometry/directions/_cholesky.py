"""The fast solver for well-conditioned Gram matrices, by a Cholesky factorisation."""

from typing import ClassVar

import jax.numpy as jnp
import jax.scipy.linalg as jsl

from .._spectrum import numerical_rank
from ._base import AbstractDirectionSolver, Direction, SolveDiagnostics, relative_residual
from ._equation import DirectionEquation
from ._spectra import gram_spectrum
from ._whitening import whitened_gram


class Cholesky(AbstractDirectionSolver):
    """a = R (L L^T)^(-1) h with L L^T = R^T A R + eps I.

    It costs at most a third of the eigendecomposition, but needs a positive definite matrix. On others it breaks down:
    `success` is False, and the run ends for that reason. On a nearly singular matrix the direction is not the minimum-norm
    one; the pivots show it, and `rank` counts those above the rank cut-off. With a damping rule that reads sigma_min the
    eigenvalues are computed all the same, and this solver saves nothing.
    """

    is_differentiable: ClassVar[bool] = True
    is_direct: ClassVar[bool] = True

    def never_ascends(self, sees_gradient: bool) -> bool:
        """True: the solve is exact, or `success` is False."""
        return True

    def solve(self, equation: DirectionEquation) -> Direction:
        """The direction; `rank` counts the pivots above the cut-off (0 after a breakdown)."""
        gram, num_outputs = equation.tangent.gram(), equation.tangent.outputs.shape[1]
        matrix = whitened_gram(gram, equation.factor, num_outputs)
        shift = equation.damping.shift(equation.time, gram_spectrum(gram, equation.factor, num_outputs))
        shape = equation.whitened_gradient.shape
        right = equation.right_hand_side(shift, lambda v: (gram @ v.reshape(-1)).reshape(shape)).reshape(-1)
        triangle = jnp.linalg.cholesky(matrix + shift * jnp.eye(matrix.shape[0]))
        solution = jsl.cho_solve((triangle, True), right)
        residual = matrix @ solution + shift * solution - right
        success = jnp.all(jnp.isfinite(solution))
        # After a breakdown the factor is nan, and no pivot counts.
        pivots = jnp.nan_to_num(jnp.diagonal(triangle) ** 2, nan=0.0)
        return Direction(
            coefficients=equation.coefficients(solution.reshape(shape), shift),
            diagnostics=SolveDiagnostics(
                damping=shift,
                rank=jnp.where(success, numerical_rank(pivots), 0),
                relative_residual=relative_residual(residual, right),
                success=success,
            ),
        )
