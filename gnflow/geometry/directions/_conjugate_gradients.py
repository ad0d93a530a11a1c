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

# By how much the residual may be above the tolerance for what rounding adds to it over the iterations.
_SLACK = 10.0


class ConjugateGradients(AbstractDirectionSolver):
    """Conjugate gradients on R^T J J^T R + eps I: one J and one J^T product an iteration, nothing of size NC x NC.

    The number of iterations grows with the square root of the condition number, so damp, or give a preconditioner: an
    ill-conditioned A without either is better served by `TruncatedEigh` as long as NC allows. Damping rules that read
    sigma_min are refused, for it is not known here: `damping.LargestEigenvalue` stands in.

    **Arguments:** `rtol`: the residual to stop at, relative to the norm of the right-hand side; `max_steps`: iterations
    allowed; `preconditioner`: `MeanKernel`, `Nystrom` or one of yours, None for none. **Raises:** `ConfigError` for other
    numbers or objects; from the velocity, for a damping rule that reads sigma_min.
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
        """Where all of g is in the image of H every iterate is one of descent (docs/theory.md, exact fact 5), and with them
        their means; those of a preconditioned iteration need not be."""
        return sees_gradient and self.preconditioner is None

    def solve(self, equation: DirectionEquation) -> Direction:
        """The direction; `success` is False where the iterations ended before the tolerance was met."""
        tangent, factor = equation.tangent, equation.factor
        gram_product = tangent.gram_operator()

        def whitened_product(vector: Array) -> Array:
            return factor.transpose_product(gram_product(factor.product(vector)))

        spectrum = matrix_free_spectrum(tangent, factor, whitened_product, equation.damping)
        shift = equation.damping(equation.time, spectrum)

        def product(vector: Array) -> Array:
            return whitened_product(vector) + shift * vector

        inverse = _unchanged
        if self.preconditioner is not None:
            inverse = self.preconditioner.inverse(tangent, factor, shift, whitened_product)
        right = equation.right_hand_side(shift, gram_product)

        def iterate(_, right: Array) -> tuple[Array, Int[Array, ""]]:
            return smoothed_conjugate_gradients(product, right, inverse, self.rtol, self.max_steps)

        # A derivative of the solution is another solve, not one of the iterations.
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
        """The direction and the leading modes: beyond their number the dense Gram matrix is not formed here either."""
        matrix_free = Decomposition(0, decomposition.rank, decomposition.power)
        return super().solve_and_decompose(equation, matrix_free)


def _unchanged(vector: Array) -> Array:
    return vector
