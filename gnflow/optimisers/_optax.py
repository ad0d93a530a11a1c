"""Any optimiser of Optax."""

from typing import Any

import optax
from jaxtyping import PyTree

from .._core import ConfigError
from ._base import AbstractOptimiser


class Optax(AbstractOptimiser):
    """An `optax.GradientTransformation`: schedules, clipping, weight decay, any chain of them.

    `gnflow.iterate` takes the transformation itself as well. Its numbers are part of the compiled program: another learning
    rate is another one, unlike with `SGD` and `Adam`. A saved run keeps only a note of it.

    **Arguments:** `transformation`: it sees gradient, state and weights; one that needs more (the loss, as `optax.lbfgs` does)
    cannot be used.

    **Raises:** `ConfigError` for anything else.
    """

    transformation: optax.GradientTransformation

    def __check_init__(self):
        if not isinstance(self.transformation, optax.GradientTransformation):
            raise ConfigError(
                f"Optax({self.transformation!r}); expected an optax.GradientTransformation such as optax.adam(1e-3)."
            )

    def init(self, weights: PyTree) -> PyTree:
        """The transformation's."""
        return self.transformation.init(weights)

    def update(self, gradient: PyTree, state: PyTree, weights: PyTree) -> tuple[PyTree, PyTree]:
        """The transformation's. **Raises:** `ConfigError` if it asks for more than gradient, state and weights."""
        try:
            return self.transformation.update(gradient, state, weights)
        except TypeError as error:
            raise ConfigError(
                f"the optax transformation cannot make a step of gradient, state and weights alone: {error}; take one that "
                "does not need the loss."
            ) from error


def as_optimiser(optimiser: Any) -> AbstractOptimiser:
    """`optimiser` itself, or an Optax transformation wrapped in `Optax`.

    **Raises:** `ConfigError` for anything else.
    """
    if isinstance(optimiser, AbstractOptimiser):
        return optimiser
    if isinstance(optimiser, optax.GradientTransformation):
        return Optax(optimiser)
    raise ConfigError(
        f"optimiser = {optimiser!r}; expected an optimiser such as gnflow.optimisers.Adam(1e-3) or optax.adam(1e-3)."
    )
