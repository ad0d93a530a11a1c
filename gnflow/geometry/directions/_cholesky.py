"""The fast solver for well-conditioned Gram matrices, by a Cholesky factorisation."""

from typing import ClassVar

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ...losses import AbstractOutputFactor
from .._spectrum import numerical_rank
from .._tangent import AbstractTangent
from ..damping import AbstractDamping
from ._base import AbstractDirectionSolver, Direction, SolveDiagnostics, relative_residual
from ._spectra import gram_spectrum
from ._unseen import coefficients, right_hand_side
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

    def solve(
        self,
        tangent: AbstractTangent,
        factor: AbstractOutputFactor,
        whitened_gradient: Float[Array, "samples outputs"],
        damping: AbstractDamping,
        time: Float[Array, ""],
        unseen_gradient: Float[Array, "samples outputs"] | None = None,
    ) -> Direction:
        """The direction; `rank` counts the pivots above the cut-off (0 after a breakdown)."""
        gram = tangent.gram()
        matrix = whitened_gram(gram, factor, tangent.outputs.shape[1])
        shift = damping(time, gram_spectrum(gram, factor, tangent.outputs.shape[1]))
        shape = whitened_gradient.shape
        right = right_hand_side(
            whitened_gradient, unseen_gradient, factor, shift, lambda v: (gram @ v.reshape(-1)).reshape(shape)
        ).reshape(-1)
        triangle = jnp.linalg.cholesky(matrix + shift * jnp.eye(matrix.shape[0]))
        solution = jsl.cho_solve((triangle, True), right)
        residual = matrix @ solution + shift * solution - right
        success = jnp.all(jnp.isfinite(solution))
        pivots = jnp.nan_to_num(jnp.diagonal(triangle) ** 2, nan=0.0)
        return Direction(
            coefficients=coefficients(solution.reshape(shape), unseen_gradient, factor, shift),
            diagnostics=SolveDiagnostics(
                damping=shift,
                rank=jnp.where(success, numerical_rank(pivots), 0),
                relative_residual=relative_residual(residual, right),
                success=success,
            ),
        )
