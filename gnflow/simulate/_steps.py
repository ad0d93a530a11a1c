"""What the discrete methods share: how a step is made from a velocity, and what is known at a saved step."""

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
    """Makes a step from a velocity, and defines the time of the run.

    **Attributes:**

    - `too_long`: a clause for the message of a run that diverges: why steps are too long, and the remedy.
    - `factors`: the factors (steps,) by which steps are scaled, or None for 1.
    """

    too_long: ClassVar[str]
    factors: eqx.AbstractVar[Float[Array, " steps"] | None]

    @abc.abstractmethod
    def init(self, weights: PyTree) -> PyTree:
        """The method's memory before the first step."""

    @abc.abstractmethod
    def time(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The time that the flow sees after `step` steps."""

    @abc.abstractmethod
    def take(
        self,
        step: Int[Array, ""],
        weights: PyTree,
        integrals: dict[str, Array],
        memory: PyTree,
        velocity: PyTree,
        measurement: Measurement,
        system: System,
    ) -> tuple[PyTree, dict[str, Array], PyTree]:
        """Weights, integrals over time and memory after step number `step`, from 0, along `velocity`."""

    @abc.abstractmethod
    def diagnostics(self, memory: PyTree) -> SolveDiagnostics | None:
        """How the method itself solved for the last step, of the memory after it; None if the flow did."""


class EulerStep(AbstractStep):
    """The Euler step w <- w + step_size w'. The time of the run is flow time."""

    too_long: ClassVar[str] = (
        "the step size is beyond the method's stability (gradient descent needs step_size * mobility < 2 / (largest eigenvalue "
        "of A * smoothness of the loss), and weight decay step_size * rate < 2); take a smaller one"
    )

    step_size: Float[Array, ""]
    factors: Float[Array, " steps"] | None = None

    def init(self, weights: PyTree) -> PyTree:
        """The empty memory."""
        return ()

    def time(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """step * step_size; with factors the sum of the steps that were taken."""
        if self.factors is None:
            return step * self.step_size
        taken = jnp.arange(self.factors.shape[0]) < step
        return self.step_size * jnp.sum(jnp.where(taken, self.factors, 0.0))

    def take(
        self,
        step: Int[Array, ""],
        weights: PyTree,
        integrals: dict[str, Array],
        memory: PyTree,
        velocity: PyTree,
        measurement: Measurement,
        system: System,
    ) -> tuple[PyTree, dict[str, Array], PyTree]:
        """One Euler step."""
        rates = measurement.integrands(velocity)
        length = self.step_size if self.factors is None else self.step_size * self.factors[step]
        return tree_add_scaled(weights, length, velocity), tree_add_scaled(integrals, length, rates), memory

    def diagnostics(self, memory: PyTree) -> SolveDiagnostics | None:
        """None: the velocity is the flow's."""
        return None


class OptimiserStep(AbstractStep):
    """The optimiser's step for the gradient -w'. The time of the run is the number of steps, and integrals sum over steps."""

    too_long: ClassVar[str] = "the optimiser's steps are too long; take a smaller learning rate"

    optimiser: AbstractOptimiser
    factors: Float[Array, " steps"] | None = None

    def init(self, weights: PyTree) -> PyTree:
        """The first state of the optimiser."""
        return self.optimiser.init(weights)

    def time(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The number of steps."""
        return step.astype(jnp.float64)

    def take(
        self,
        step: Int[Array, ""],
        weights: PyTree,
        integrals: dict[str, Array],
        memory: PyTree,
        velocity: PyTree,
        measurement: Measurement,
        system: System,
    ) -> tuple[PyTree, dict[str, Array], PyTree]:
        """One step of the optimiser."""
        move, memory = self.optimiser.update(tree_scale(-1.0, velocity), memory, weights, system)
        if self.factors is not None:
            move = tree_scale(self.factors[step], move)
        rates = measurement.integrands(move)
        return tree_add_scaled(weights, 1.0, move), tree_add_scaled(integrals, 1.0, rates), memory

    def diagnostics(self, memory: PyTree) -> SolveDiagnostics | None:
        """Those of the optimiser."""
        return self.optimiser.diagnostics(memory)


@dataclasses.dataclass(frozen=True)
class SavedStep:
    """What is known of a run in steps at a saved step.

    **Attributes:**

    - `step`: the number of steps taken.
    - `state`: the weights and all else that the next step needs, on the device.
    - `values`: what was measured.
    - `margins`: the margins of the stop rules.
    - `solves`: the diagnostics of the direction solves since the last save, with a first axis added to each field; None for a
      flow without a solve.
    - `losses`: the losses recorded for each batch since the last save, by name, (batches,).
    - `failure`: why the run cannot go on, or None.
    """

    step: int
    state: Any
    values: Values
    margins: tuple[Array, ...]
    solves: SolveDiagnostics | None
    losses: dict[str, np.ndarray]
    failure: Result | None


class AbstractStepLoop(abc.ABC):
    """Takes the steps of a run, each with all training samples or with a batch of them.

    **Arguments:**

    - `system`: the problem joined with the model's structure.
    - `measurement`: what is measured at saved steps.
    - `method`: makes a step from a velocity.
    - `rules`: the stop rules, with arrays for floats.
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
        """The state `stride` steps later, or at the first of these steps that fails."""
