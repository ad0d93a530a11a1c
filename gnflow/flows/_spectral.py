"""The spectral family between gradient flow and Gauss-Newton flow."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import ConfigError
from ..geometry import AbstractTangent, Direction, SolveDiagnostics, System, numerical_rank
from ..geometry.damping import AbstractDamping, Constant
from ..geometry.directions import kept_modes, relative_residual
from ._base import AbstractOutputFlow


class SpectralFlow(AbstractOutputFlow):
    """w' = -J^T psi(A) g with psi(lam) = (lam + eps)^(-power): gradient flow at power 0, Gauss-Newton (H = I) at power 1.

    Along an eigenvector of A with eigenvalue lam the residual of the squared loss decays at the rate lam psi(lam)/N, which
    is lam/N for gradient flow and 1/N for undamped Gauss-Newton. Derived in docs/theory.md.

    **Arguments:** `power` s in [0, 1]; `damping`: the rule for eps, in units of A. Flow time has the unit of gradient flow
    with mobility 1 at power 0 and of Gauss-Newton with the identity metric at power 1.

    **Raises:** `ConfigError` if `power` is outside [0, 1].
    """

    power: float = 0.5
    damping: AbstractDamping = Constant(0.0)

    def __check_init__(self):
        if isinstance(self.power, int | float) and not 0 <= self.power <= 1:
            raise ConfigError(f"power = {self.power!r}; expected a number from 0 (gradient flow) to 1 (Gauss-Newton).")

    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """a = psi(A) g over the modes above the rank cut-off; the others do not move the weights.

        `relative_residual` is the part of g in the modes left out.
        """
        gradient = system.loss.gradient(tangent.outputs, system.problem.y_train)
        eigenvalues, eigenvectors = jnp.linalg.eigh(tangent.gram())
        shift = self.damping(time, jnp.maximum(eigenvalues[0], 0.0))
        modes = kept_modes(eigenvalues, shift)
        shifted = jnp.where(modes, jnp.maximum(eigenvalues, 0.0) + shift, 1.0)
        amplitudes = eigenvectors.T @ gradient.reshape(-1)
        kept = jnp.where(modes, amplitudes * shifted**-self.power, 0.0)
        coefficients = (eigenvectors @ kept).reshape(gradient.shape)
        diagnostics = SolveDiagnostics(
            damping=shift,
            rank=numerical_rank(eigenvalues),
            relative_residual=relative_residual(jnp.where(modes, 0.0, amplitudes), amplitudes),
            success=jnp.all(jnp.isfinite(coefficients)),
        )
        return Direction(coefficients=coefficients, diagnostics=diagnostics)
