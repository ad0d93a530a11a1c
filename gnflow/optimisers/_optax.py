"""Any gradient transformation of Optax as an optimiser."""

from typing import Any

import jax
import optax
from jaxtyping import Array, PyTree

from .._core import ConfigError, require_instance, shown
from ..geometry import System
from ._base import AbstractOptimiser


class Optax(AbstractOptimiser):
    """An `optax.GradientTransformation`: schedules, clipping, weight decay, any chain of them.

    `gnflow.iterate` also takes the transformation itself. Its numbers are part of the compiled program: unlike with `SGD` and
    `Adam`, another learning rate needs another program. A saved run keeps only a note of the transformation.

    **Arguments:** `transformation`: a transformation of gradient, state and weights. If it takes extra arguments it also gets
    `value`, `grad` and `value_fn` of the loss on the step's samples, which Optax's line searches and `optax.lbfgs` need
    (`grad` is the loss's gradient for every flow), and `system`, which `dual_gauss_newton` needs. The latter finds its own
    direction: use it with `GradientFlow(mobility=1.0)`, because the direction of another flow would be computed and recorded
    in vain.

    **Raises:** `ConfigError` for anything else.
    """

    transformation: optax.GradientTransformation

    def __check_init__(self):
        if not isinstance(self.transformation, optax.GradientTransformation):
            raise ConfigError(
                f"Optax({shown(self.transformation)}); expected an optax.GradientTransformation such as optax.adam(1e-3)."
            )

    def init(self, weights: PyTree) -> PyTree:
        """The transformation's state."""
        return self.transformation.init(weights)

    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The transformation's step and state. **Raises:** `ConfigError` if it needs other arguments."""
        more: dict[str, Any] = {}
        given = "gradient, state and weights alone"
        if system is not None and isinstance(self.transformation, optax.GradientTransformationExtraArgs):
            samples = system

            # Optax's line searches pass extra arguments on to the parameters of this function with the same names, and refuse
            # the others.
            def value_fn(weights: PyTree, system: System = samples) -> Array:
                return system.train_loss(weights)

            value, grad = jax.value_and_grad(value_fn)(weights)
            more = {"value": value, "grad": grad, "value_fn": value_fn, "system": system}
            given = "gradient, state, weights, " + ", ".join(more)
        try:
            return self.transformation.update(gradient, state, weights, **more)
        except TypeError as error:
            raise ConfigError(f"the optax transformation cannot make a step of {given}: {error}.") from error


def as_optimiser(optimiser: Any) -> AbstractOptimiser:
    """`optimiser` itself, or an Optax transformation wrapped in `Optax`.

    **Raises:** `ConfigError` for anything else.
    """
    if isinstance(optimiser, optax.GradientTransformation):
        return Optax(optimiser)
    example = "an optimiser such as gnflow.optimisers.Adam(1e-3) or optax.adam(1e-3)"
    return require_instance(ConfigError, "optimiser", optimiser, AbstractOptimiser, example)
