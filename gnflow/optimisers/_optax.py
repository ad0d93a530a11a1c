"""Any optimiser of Optax."""

from typing import Any

import jax
import optax
from jaxtyping import Array, PyTree

from .._core import ConfigError, require_instance, shown
from ..geometry import System
from ._base import AbstractOptimiser


class Optax(AbstractOptimiser):
    """An `optax.GradientTransformation`: schedules, clipping, weight decay, any chain of them.

    `gnflow.iterate` takes the transformation itself as well. Its numbers are part of the compiled program: another learning
    rate is another one, unlike with `SGD` and `Adam`. A saved run keeps only a note of it.

    **Arguments:** `transformation`: it sees gradient, state and weights. One with more arguments gets by name those that
    Optax's line searches and `optax.lbfgs` ask for, `value`, `grad` and `value_fn`, of the loss on the step's samples
    (`grad` is its gradient, whatever the flow), and `system`, which `dual_gauss_newton` asks for. That one finds its own
    direction: give it `GradientFlow(mobility=1.0)`, for another flow's would be solved for, and recorded, for nothing.

    **Raises:** `ConfigError` for anything else.
    """

    transformation: optax.GradientTransformation

    def __check_init__(self):
        if not isinstance(self.transformation, optax.GradientTransformation):
            raise ConfigError(
                f"Optax({shown(self.transformation)}); expected an optax.GradientTransformation such as optax.adam(1e-3)."
            )

    def init(self, weights: PyTree) -> PyTree:
        """The transformation's."""
        return self.transformation.init(weights)

    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The transformation's. **Raises:** `ConfigError` if it asks for more than it can be given."""
        more: dict[str, Any] = {}
        given = "gradient, state and weights alone"
        if system is not None and isinstance(self.transformation, optax.GradientTransformationExtraArgs):
            samples = system

            # Line searches pass on to the function what it names, and refuse what it does not.
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
