"""Gradient flow."""

from typing import Any, ClassVar, Literal

import equinox as eqx
from jaxtyping import Array, Float

from .._core import ConfigError, require_number
from ..geometry import AbstractTangent, Decomposition, Direction, Linearisation, System, linearise_with_hessian
from ._base import AbstractLinearisedFlow
from ._gain import ConstantGain


def _as_mobility(value: Any) -> Any:
    if isinstance(value, str) and value == "model":
        return value
    return require_number(ConfigError, "mobility", value, least=0.0, remedy="'model' takes the model's own.")


class GradientFlow(AbstractLinearisedFlow):
    """w' = -m grad L(w) = -m J^T g, so that f' = -m A g.

    **Arguments:**

    - `mobility`: m, which only sets the unit of flow time. "model" uses the model's own mobility: M for a mean-field network of
      M particles, so that the speed does not depend on M (Chizat and Bach 2018), and 1 for a model that defines none. One step
      of gradient descent with step size s advances the flow by s/m.

    **Raises:** `ConfigError` for another string or a negative number.
    """

    rests_with_gradient: ClassVar[bool] = True
    is_stiff: ClassVar[bool] = True

    mobility: float | Literal["model"] = eqx.field(converter=_as_mobility, default="model")

    def never_ascends(self, system: System) -> bool:
        """True, also on kinks: dL/dt = -m |J^T g|^2."""
        return True

    def has_real_spectrum(self, system: System) -> bool:
        """True: the Jacobian is -m times the Hessian of L, which is symmetric."""
        return True

    def is_smooth(self, system: System) -> bool | None:
        """True."""
        return True

    def gain(self, system: System) -> ConstantGain:
        """k = m."""
        return ConstantGain(mobility=self.effective_mobility(system))

    def is_differentiable(self, system: System) -> bool:
        """True for models without kinks."""
        return system.has_kinks is False

    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """a = m g, without a solve."""
        gradient = system.loss.gradient(tangent.outputs, system.problem.y_train)
        return Direction(coefficients=self.effective_mobility(system) * gradient, diagnostics=None)

    def linearisation(
        self, time: Float[Array, ""], tangent: AbstractTangent, system: System, decomposition: Decomposition
    ) -> Linearisation:
        """W = -m J^T H_L J. With H_L = R R^T the modes of R^T A R decay at the rates m lam."""
        factor = system.loss.hessian_factor(tangent.outputs, system.problem.y_train)
        modes = decomposition.modes(tangent, factor)
        gains = self.gain(system)(modes.eigenvalues, 0.0, modes.cutoff)
        return linearise_with_hessian(tangent, self.direction(time, tangent, system), modes, gains, factor)

    def effective_mobility(self, system: System) -> float | Array:
        """m as a number: the model's own mobility if `mobility` is "model"."""
        return system.mobility if isinstance(self.mobility, str) else self.mobility
