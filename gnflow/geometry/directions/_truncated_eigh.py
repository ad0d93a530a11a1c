"""The safe default: a truncated eigendecomposition of the whitened Gram matrix."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...losses import AbstractOutputFactor
from .._spectrum import numerical_rank, rank_cutoff
from .._tangent import AbstractTangent
from ..damping import AbstractDamping
from ._base import AbstractDirectionSolver, Direction, SolveDiagnostics, relative_residual
from ._whitening import smallest_gram_eigenvalue, whitened_gram


class TruncatedEigh(AbstractDirectionSolver):
    """a = R Q diag(1/(lam + eps)) Q^T h over the modes with lam + eps above the rank cut-off.

    On a rank-deficient Gram matrix without damping this is the minimum-norm direction, where QR and Cholesky return
    another one without saying so. Cost: one symmetric eigendecomposition of size NC, O(NC^2) memory.
    """

    def solve(
        self,
        tangent: AbstractTangent,
        factor: AbstractOutputFactor,
        whitened_gradient: Float[Array, "samples outputs"],
        damping: AbstractDamping,
        time: Float[Array, ""],
    ) -> Direction:
        """The direction; `rank` counts the eigenvalues of R^T A R above the cut-off."""
        gram = tangent.gram()
        matrix = whitened_gram(gram, factor, tangent.outputs.shape[1])
        eigenvalues, eigenvectors = jnp.linalg.eigh(matrix)
        if damping.needs_smallest_eigenvalue:
            smallest = smallest_gram_eigenvalue(gram, factor, eigenvalues)
        else:
            smallest = jnp.zeros(())
        shift = damping(time, smallest)
        right_hand_side = whitened_gradient.reshape(-1)
        modes = kept_modes(eigenvalues, shift)
        shifted = jnp.where(modes, jnp.maximum(eigenvalues, 0.0) + shift, 1.0)
        amplitudes = jnp.where(modes, (eigenvectors.T @ right_hand_side) / shifted, 0.0)
        solution = eigenvectors @ amplitudes
        residual = matrix @ solution + shift * solution - right_hand_side
        return Direction(
            coefficients=factor.product(solution.reshape(whitened_gradient.shape)),
            diagnostics=SolveDiagnostics(
                damping=shift,
                rank=numerical_rank(eigenvalues),
                relative_residual=relative_residual(residual, right_hand_side),
                success=jnp.all(jnp.isfinite(solution)),
            ),
        )


def kept_modes(eigenvalues: Float[Array, " size"], shift: Float[Array, ""]) -> Bool[Array, " size"]:
    """Which modes can be divided by lam + eps: those where it is above the rank cut-off."""
    return jnp.maximum(eigenvalues, 0.0) + shift > rank_cutoff(eigenvalues)
