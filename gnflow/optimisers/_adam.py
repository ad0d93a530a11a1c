"""Adam."""

import optax
from jaxtyping import PyTree

from ..geometry import System
from ._base import AbstractOptimiser, require_fields


class Adam(AbstractOptimiser):
    """Adam (Kingma and Ba 2015, algorithm 1): `optax.adam`.

    w <- w - learning_rate mean / (sqrt(square) + epsilon), with the bias-corrected running means of the gradient and of its
    squares. Its first step has the length learning_rate in every weight, whatever the unit of the gradient.

    **Arguments:** `learning_rate`: positive, in units of the weights; `beta1`, `beta2`: in [0, 1), of the two means;
    `epsilon`: positive, in units of the gradient.

    **Raises:** `ConfigError` for a number outside these ranges.
    """

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __check_init__(self):
        positive, decay = {"above": 0.0}, {"least": 0.0, "below": 1.0}
        require_fields(self, {"learning_rate": positive, "beta1": decay, "beta2": decay, "epsilon": positive})

    def init(self, weights: PyTree) -> PyTree:
        """Means of 0, after no step."""
        return self._optax().init(weights)

    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The step and the next means."""
        return self._optax().update(gradient, state, weights)

    def _optax(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate, b1=self.beta1, b2=self.beta2, eps=self.epsilon)
