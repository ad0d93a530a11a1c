"""The default solver, by a truncated eigendecomposition of the whitened Gram matrix."""

from typing import ClassVar

import jax.numpy as jnp

from ._base import AbstractDirectionSolver, Direction, SolveDiagnostics, relative_residual
from ._equation import DirectionEquation
from ._matrix_power import truncated_power, truncated_power_product
from ._modes import Decomposition, Modes, dense_modes
from ._spectra import decomposed_spectrum


class TruncatedEigh(AbstractDirectionSolver):
    """a = R Q diag(1/(lam + eps)) Q^T h over the modes with lam + eps above the rank cut-off.

    On a rank-deficient Gram matrix without damping this is the minimum-norm direction; QR and Cholesky return another one and
    report success. Cost: one symmetric eigendecomposition of size NC, in O((NC)^2) memory.
    """

    is_differentiable: ClassVar[bool] = True
    is_direct: ClassVar[bool] = True

    def never_ascends(self, sees_gradient: bool) -> bool:
        """True: each mode descends by itself, so leaving some out changes nothing."""
        return True

    def solve(self, equation: DirectionEquation) -> Direction:
        """The direction; `rank` counts the eigenvalues of R^T A R above the cut-off."""
        return self.solve_and_decompose(equation, Decomposition())[0]

    def solve_and_decompose(self, equation: DirectionEquation, decomposition: Decomposition) -> tuple[Direction, Modes]:
        """The direction and the modes that it was computed from: always all of them, for any `decomposition`."""
        modes = dense_modes(equation.tangent, equation.factor)
        gram, matrix, eigenvalues, eigenvectors = modes.gram, modes.matrix, modes.eigenvalues, modes.eigenvectors
        assert gram is not None
        assert matrix is not None
        shift = equation.damping.shift(equation.time, decomposed_spectrum(gram, equation.factor, eigenvalues))
        shape = equation.whitened_gradient.shape
        right = equation.right_hand_side(shift, lambda v: (gram @ v.reshape(-1)).reshape(shape)).reshape(-1)
        solution = truncated_power_product(matrix, shift, jnp.ones(()), right, eigenvalues, eigenvectors, modes.cutoff)
        residual = matrix @ solution + shift * solution - right + shift * modes.unneeded(right, shift)
        amplitudes = truncated_power(eigenvalues, shift, 1.0, modes.cutoff) * (eigenvectors.T @ right)
        coefficients = equation.coefficients(solution.reshape(shape), shift)
        direction = Direction(
            coefficients=coefficients,
            # The part of g that H does not see has no modes.
            pulled=None
            if equation.unseen_gradient is not None
            else modes.pull(equation.tangent, coefficients, amplitudes),
            diagnostics=SolveDiagnostics(
                damping=shift,
                rank=modes.rank,
                relative_residual=relative_residual(residual, right),
                success=jnp.all(jnp.isfinite(solution)),
                kept=jnp.sum(modes.kept(shift)),
            ),
        )
        return direction, modes
