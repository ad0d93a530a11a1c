"""Stochastic gradient descent with momentum."""

import equinox as eqx
import optax
from jaxtyping import PyTree

from .._core import ConfigError, number_field, require_bool
from ..geometry import System
from ._base import AbstractOptimiser


class SGD(AbstractOptimiser):
    """v <- momentum v + g, w <- w - learning_rate v, where g is the gradient: `optax.sgd`.

    Without momentum these are the steps of `gnflow.iterate(step_size=learning_rate)`.

    **Arguments:**

    - `learning_rate`: positive, in units of flow time.
    - `momentum`: in [0, 1).
    - `nesterov`: whether to step along momentum v + g instead (Sutskever, Martens, Dahl and Hinton 2013).

    **Raises:** `ConfigError` for a number outside these ranges.
    """

    learning_rate: float = number_field("SGD: learning_rate", above=0.0)
    momentum: float = number_field("SGD: momentum", default=0.0, least=0.0, below=1.0)
    nesterov: bool = eqx.field(default=False, static=True)

    def __check_init__(self):
        (nesterov,) = require_bool(ConfigError, nesterov=self.nesterov)
        if nesterov and not eqx.is_array(self.momentum) and not self.momentum:
            raise ConfigError("SGD: nesterov = True without momentum; give it a momentum to act on, such as 0.9.")

    def init(self, weights: PyTree) -> PyTree:
        """v = 0."""
        return self._optax().init(weights)

    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The step and the next v."""
        return self._optax().update(gradient, state, weights)

    def _optax(self) -> optax.GradientTransformation:
        # v is kept also for a momentum of 0, so that all values of the momentum share one program.
        return optax.sgd(self.learning_rate, momentum=self.momentum, nesterov=self.nesterov)
