"""What the discrete methods share: the step that is made of a velocity, and what is known where a run in steps saves."""

import abc
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core import Result, tree_add_scaled, tree_scale
from ..geometry import SolveDiagnostics, System
from ..optimisers import AbstractOptimiser
from ._measure import Measurement, Values
from .stop import AbstractStopRule


class AbstractStep(eqx.Module):
    """Takes steps, and says what the clock of the run shows.

    **Attributes:** `too_long`: why the loss overflows, and what to do about it.
    """

    too_long: ClassVar[str]

    @abc.abstractmethod
    def init(self, weights: PyTree) -> PyTree:
        """The memory before the first step."""

    @abc.abstractmethod
    def time(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The time that the flow sees after `step` steps."""

    @abc.abstractmethod
    def take(
        self,
        weights: PyTree,
        integrals: dict[str, Array],
        memory: PyTree,
        velocity: PyTree,
        measurement: Measurement,
        system: System,
    ) -> tuple[PyTree, dict[str, Array], PyTree]:
        """Weights, integrals over time and memory after a step along `velocity`."""


class EulerStep(AbstractStep):
    """w <- w + step_size w'; the clock shows flow time."""

    too_long: ClassVar[str] = (
        "the step size is beyond the method's stability (gradient descent needs step_size * mobility < 2 / (largest eigenvalue "
        "of A * smoothness of the loss), and weight decay step_size * rate < 2); take a smaller one"
    )

    step_size: Float[Array, ""]

    def init(self, weights: PyTree) -> PyTree:
        """Nothing."""
        return ()

    def time(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """step * step_size."""
        return step * self.step_size

    def take(
        self,
        weights: PyTree,
        integrals: dict[str, Array],
        memory: PyTree,
        velocity: PyTree,
        measurement: Measurement,
        system: System,
    ) -> tuple[PyTree, dict[str, Array], PyTree]:
        """One Euler step."""
        rates = measurement.integrands(velocity)
        return (
            tree_add_scaled(weights, self.step_size, velocity),
            tree_add_scaled(integrals, self.step_size, rates),
            memory,
        )


class OptimiserStep(AbstractStep):
    """The optimiser's step for the gradient -w'; the clock counts steps, and the rate of change is the step itself."""

    too_long: ClassVar[str] = "the optimiser's steps are too long; take a smaller learning rate"

    optimiser: AbstractOptimiser

    def init(self, weights: PyTree) -> PyTree:
        """The optimiser's."""
        return self.optimiser.init(weights)

    def time(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The number of steps."""
        return step.astype(jnp.float64)

    def take(
        self,
        weights: PyTree,
        integrals: dict[str, Array],
        memory: PyTree,
        velocity: PyTree,
        measurement: Measurement,
        system: System,
    ) -> tuple[PyTree, dict[str, Array], PyTree]:
        """One step of the optimiser."""
        step, memory = self.optimiser.update(tree_scale(-1.0, velocity), memory, weights, system)
        rates = measurement.integrands(step)
        return tree_add_scaled(weights, 1.0, step), tree_add_scaled(integrals, 1.0, rates), memory


@dataclasses.dataclass(frozen=True)
class SavedStep:
    """What is known of a run in steps where it saves.

    **Attributes:** `step`: how many were taken; `state`: weights and all that the next step needs, on the device; `values`:
    what was measured; `margins`: of the stop rules; `solves`: how the directions were solved for since the last save, each
    field with a first axis more, None for a flow that solves for nothing; `losses`: those recorded of each batch since the
    last save, by name, (batches,); `failure`: why there is no going on, or None.
    """

    step: int
    state: Any
    values: Values
    margins: tuple[Array, ...]
    solves: SolveDiagnostics | None
    losses: dict[str, np.ndarray]
    failure: Result | None


class AbstractStepLoop(abc.ABC):
    """Takes the steps of a run, with all training samples each or with batches of them.

    **Arguments:** `system`, `measurement`; `method`: what makes steps of velocities; `rules`: the stop rules. Their floats
    are arrays.
    """

    def __init__(
        self, system: System, measurement: Measurement, method: AbstractStep, rules: tuple[AbstractStopRule, ...]
    ):
        self.system = system
        self.measurement = measurement
        self.method = method
        self.rules = rules

    @abc.abstractmethod
    def start(self, weights: PyTree) -> SavedStep:
        """The state before any step."""

    @abc.abstractmethod
    def advance(self, saved: SavedStep, stride: int) -> SavedStep:
        """The state after `stride` steps more, or fewer where one of them fails."""
