"""Adam."""

import optax
from jaxtyping import PyTree

from .._core import number_field
from ..geometry import System
from ._base import AbstractOptimiser


class Adam(AbstractOptimiser):
    """Adam (Kingma and Ba 2015, algorithm 1): `optax.adam`.

    w <- w - learning_rate mean / (sqrt(square) + epsilon), with the bias-corrected running means of the gradient and of its
    squares. The first step changes every weight by learning_rate, in any unit of the gradient.

    **Arguments:**

    - `learning_rate`: positive, in units of the weights.
    - `beta1`: the decay of the running mean of the gradient, in [0, 1).
    - `beta2`: the decay of the running mean of its squares, in [0, 1).
    - `epsilon`: positive, in units of the gradient.

    **Raises:** `ConfigError` for a number outside these ranges.
    """

    learning_rate: float = number_field("Adam: learning_rate", above=0.0)
    beta1: float = number_field("Adam: beta1", default=0.9, least=0.0, below=1.0)
    beta2: float = number_field("Adam: beta2", default=0.999, least=0.0, below=1.0)
    epsilon: float = number_field("Adam: epsilon", default=1e-8, above=0.0)

    def init(self, weights: PyTree) -> PyTree:
        """Means of 0, and no steps."""
        return self._optax().init(weights)

    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The step and the next means."""
        return self._optax().update(gradient, state, weights)

    def _optax(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate, b1=self.beta1, b2=self.beta2, eps=self.epsilon)
