"""Gradient flow."""

from typing import Literal

from jaxtyping import Array, Float

from .._core import ConfigError, require_non_negative
from ..geometry import AbstractTangent, Direction, System
from ._base import AbstractOutputFlow


class GradientFlow(AbstractOutputFlow):
    """w' = -m grad L(w) = -m J^T g, so that f' = -m A g.

    **Arguments:** `mobility`: m, which only sets the unit of flow time; "model" takes the model's own (M for a mean-field
    network of M particles, the unit in which the speed does not depend on M: Chizat and Bach 2018; 1 for a model that names
    none), a number is taken as it is. One step of gradient descent with step size s advances the flow by s/m.

    **Raises:** `ConfigError` for another string or a negative number.
    """

    mobility: float | Literal["model"] = "model"

    def __check_init__(self):
        if isinstance(self.mobility, str):
            if self.mobility != "model":
                raise ConfigError(f"mobility = {self.mobility!r}; expected a number of at least 0, or 'model'.")
        elif isinstance(self.mobility, int | float):
            require_non_negative(ConfigError, mobility=self.mobility)

    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """a = m g; there is nothing to solve."""
        mobility = system.mobility if isinstance(self.mobility, str) else self.mobility
        gradient = system.loss.gradient(tangent.outputs, system.problem.y_train)
        return Direction(coefficients=mobility * gradient, diagnostics=None)
