"""The matrix-free solver, for more outputs than a dense Gram matrix allows."""

import jax
from jaxtyping import Array, Int

from ..._core import instance_field, integer_field, number_field
from ._base import AbstractDirectionSolver, Direction, SolveDiagnostics, relative_residual
from ._equation import DirectionEquation
from ._modes import Decomposition, Modes
from ._preconditioner import AbstractPreconditioner
from ._smoothed import smoothed_conjugate_gradients
from ._spectra import matrix_free_spectrum

# How many times the tolerance the residual may be: rounding adds to it over the iterations.
_SLACK = 10.0


class ConjugateGradients(AbstractDirectionSolver):
    """Conjugate gradients on R^T J J^T R + eps I: one J and one J^T product per iteration, and no matrix of size NC x NC.

    The number of iterations grows with the square root of the condition number, so use damping or a preconditioner. For an
    ill-conditioned A without either `TruncatedEigh` is better, as long as NC allows it. Damping rules that read sigma_min are
    refused, because it is not known here; take `damping.LargestEigenvalue` or `damping.Trace`.

    **Arguments:**

    - `rtol`: the norm of the residual at which to stop, relative to that of the right-hand side; between 0 and 1.
    - `max_steps`: the number of iterations allowed, at least 1.
    - `preconditioner`: `MeanKernel`, `Nystrom`, a preconditioner of your own, or None.

    **Raises:** `ConfigError` for other numbers or objects; when the velocity is computed, for a damping rule that reads
    sigma_min.
    """

    rtol: float = number_field("ConjugateGradients: rtol", default=1e-10, above=0.0, below=1.0)
    max_steps: int = integer_field("ConjugateGradients: max_steps", default=1000)
    preconditioner: AbstractPreconditioner | None = instance_field(
        "ConjugateGradients: preconditioner",
        AbstractPreconditioner,
        "MeanKernel(), Nystrom(rank) or None",
        default=None,
    )

    @property
    def allowed_residual(self) -> float:
        """`rtol`."""
        return float(self.rtol)

    def never_ascends(self, sees_gradient: bool) -> bool:
        """True if all of g is in the image of H, without a preconditioner.

        Then every iterate is a descent direction (docs/theory.md, exact fact 5), and so are the means of iterates that
        smoothing returns. Iterates with a preconditioner need not be.
        """
        return sees_gradient and self.preconditioner is None

    def solve(self, equation: DirectionEquation) -> Direction:
        """The direction; `success` is False if the iterations ended before the tolerance was met."""
        tangent, factor = equation.tangent, equation.factor
        gram_product = tangent.gram_operator()

        def whitened_product(vector: Array) -> Array:
            return factor.transpose_product(gram_product(factor.product(vector)))

        spectrum = matrix_free_spectrum(tangent, factor, whitened_product, equation.damping)
        shift = equation.damping.shift(equation.time, spectrum)

        def product(vector: Array) -> Array:
            return whitened_product(vector) + shift * vector

        inverse = _unchanged
        if self.preconditioner is not None:
            inverse = self.preconditioner.inverse(tangent, factor, shift, whitened_product)
        right = equation.right_hand_side(shift, gram_product)

        def iterate(_, right: Array) -> tuple[Array, Int[Array, ""]]:
            return smoothed_conjugate_gradients(product, right, inverse, self.rtol, self.max_steps)

        # So the derivative is computed by another solve, and not through the iterations.
        solution, iterations = jax.lax.custom_linear_solve(product, right, iterate, symmetric=True, has_aux=True)
        residual = relative_residual(product(solution) - right, right)
        return Direction(
            coefficients=equation.coefficients(solution, shift),
            diagnostics=SolveDiagnostics(
                damping=shift,
                rank=iterations,
                relative_residual=residual,
                success=residual <= _SLACK * self.rtol,
                iterations=iterations,
            ),
        )

    def solve_and_decompose(self, equation: DirectionEquation, decomposition: Decomposition) -> tuple[Direction, Modes]:
        """The direction and the leading modes, without a dense Gram matrix (unless `decomposition.rank` modes are all)."""
        matrix_free = Decomposition(0, decomposition.rank, decomposition.power)
        return super().solve_and_decompose(equation, matrix_free)


def _unchanged(vector: Array) -> Array:
    return vector
