"""The spectral family between gradient flow and Gauss-Newton flow."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import number_field
from ..geometry import (
    AbstractTangent,
    Decomposition,
    Direction,
    Linearisation,
    SolveDiagnostics,
    System,
    linearise_with_hessian,
    linearise_with_other_metric,
)
from ..geometry.damping import AbstractDamping, Constant
from ..geometry.directions import (
    Modes,
    decomposed_spectrum,
    dense_modes,
    relative_residual,
    truncated_power_product,
)
from ..losses import ScaledIdentity
from ._base import AbstractLinearisedFlow, damping_field
from ._gain import PowerGain

_IDENTITY = ScaledIdentity(1.0)


class SpectralFlow(AbstractLinearisedFlow):
    """w' = -J^T psi(A) g with psi(lam) = (lam + eps)^(-power): gradient flow at power 0, Gauss-Newton (H = I) at power 1.

    Along an eigenvector of A with eigenvalue lam the residual of the squared loss decays at the rate lam psi(lam)/N. This is
    lam/N for gradient flow and 1/N for undamped Gauss-Newton flow. Flow time has the unit of gradient flow with mobility 1 at
    power 0, and that of Gauss-Newton flow with the identity metric at power 1. Derived in docs/theory.md.

    **Arguments:**

    - `power`: the power, in [0, 1].
    - `damping`: the rule for eps, in units of A.

    **Raises:** `ConfigError` if `power` is outside [0, 1], or `damping` is not a damping rule.
    """

    rests_with_gradient: ClassVar[bool] = True
    is_stiff: ClassVar[bool] = True

    power: float = number_field(
        "power", default=0.5, least=0.0, most=1.0, remedy="0 is gradient flow, 1 is Gauss-Newton flow."
    )
    damping: AbstractDamping = damping_field(default=Constant(0.0))

    def never_ascends(self, system: System) -> bool:
        """True for models without kinks: dL/dt = -g^T A psi(A) g."""
        return system.has_kinks is False

    def has_jumps(self, system: System) -> bool:
        """Whether the damping may jump."""
        return self.damping.has_jumps

    def is_smooth(self, system: System) -> bool | None:
        """Whether the damping is smooth."""
        return self.damping.is_smooth

    def gain(self, system: System) -> PowerGain:
        """k = (lam + eps)^-power."""
        return PowerGain(power=self.power, damping=self.damping)

    def is_differentiable(self, system: System) -> bool:
        """True for models without kinks (the derivative is continuous as long as the rank does not change)."""
        return system.has_kinks is False

    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """a = psi(A) g over the modes above the rank cut-off. The other modes do not move the weights.

        The `relative_residual` of the diagnostics is the share of g in the modes that are left out.
        """
        return self._direction_and_modes(time, tangent, system)[0]

    def linearisation(
        self, time: Float[Array, ""], tangent: AbstractTangent, system: System, decomposition: Decomposition
    ) -> Linearisation:
        """W = -J^T psi(A) H_L J. The flow itself needs all modes of A, so W contains all of them for any `decomposition`."""
        direction, modes, gains = self._direction_and_modes(time, tangent, system)
        hessian_factor = system.loss.hessian_factor(tangent.outputs, system.problem.y_train)
        if isinstance(hessian_factor, ScaledIdentity):
            scale = jnp.asarray(hessian_factor.scale)
            return linearise_with_hessian(tangent, direction, modes, gains, _IDENTITY, scale)
        return linearise_with_other_metric(tangent, direction, modes, gains, _IDENTITY, hessian_factor)

    def _direction_and_modes(
        self, time: Float[Array, ""], tangent: AbstractTangent, system: System
    ) -> tuple[Direction, Modes, Float[Array, " size"]]:
        """The direction a, the modes of A, and psi at its eigenvalues."""
        gradient = system.loss.gradient(tangent.outputs, system.problem.y_train)
        modes = dense_modes(tangent, _IDENTITY)
        eigenvalues, eigenvectors = modes.eigenvalues, modes.eigenvectors
        assert modes.gram is not None
        shift = self.damping.shift(time, decomposed_spectrum(modes.gram, _IDENTITY, eigenvalues))
        kept = modes.kept(shift)
        gains = self.gain(system)(eigenvalues, shift, modes.cutoff)
        amplitudes = eigenvectors.T @ gradient.reshape(-1)
        assert modes.matrix is not None
        coefficients = truncated_power_product(
            modes.matrix,
            shift,
            jnp.asarray(self.power, dtype=float),
            gradient.reshape(-1),
            eigenvalues,
            eigenvectors,
            modes.cutoff,
        ).reshape(gradient.shape)
        right = gradient.reshape(-1)
        left_out = right - eigenvectors @ jnp.where(kept, amplitudes, 0.0) - shift * modes.unneeded(right, shift)
        diagnostics = SolveDiagnostics(
            damping=shift,
            rank=modes.rank,
            relative_residual=relative_residual(left_out, gradient.reshape(-1)),
            success=jnp.all(jnp.isfinite(coefficients)),
            kept=jnp.sum(kept),
        )
        pulled = modes.pull(tangent, coefficients, gains * amplitudes)
        return Direction(coefficients, diagnostics, pulled), modes, gains
