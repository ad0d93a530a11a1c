"""Steps that each use all training samples."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from .._core import jit_for_steps
from ..geometry import System
from ._measure import Evaluation, Measurement
from ._outcome import stack_solves, step_failure
from ._start import InitialState, evaluate_start
from ._steps import AbstractStep, AbstractStepLoop, SavedStep
from .stop import AbstractStopRule, evaluate_rules

# Weights, integrals and the method's memory.
_Carry = tuple[PyTree, dict[str, Array], PyTree]


class FullBatch(AbstractStepLoop):
    """Takes steps along the velocity on all training samples."""

    _begun: InitialState

    def start(self, weights: PyTree) -> SavedStep:
        """The state before any step."""
        self._begun = evaluate_start(weights, self.system, self.measurement, self.rules)
        begun = self._begun
        state = _State(weights, begun.integrals, self.method.init(weights), begun.evaluation, begun.stop_memories)
        return self._saved(state, self._begun.margins, 0)

    def advance(self, saved: SavedStep, stride: int) -> SavedStep:
        """The state `stride` steps later, or at the first of these steps that fails."""
        after = self._advance(saved, stride)
        if after.failure is None:
            return after
        # The result must name the step that failed. Bisection finds it, because a loss that is not finite stays so.
        while after.step - saved.step > 1:
            middle = self._advance(saved, (after.step - saved.step) // 2)
            saved, after = (middle, after) if middle.failure is None else (saved, middle)
        return after

    def _advance(self, saved: SavedStep, stride: int) -> SavedStep:
        state, margins = _advance(
            saved.state,
            jnp.asarray(saved.step),
            jnp.asarray(stride),
            self.method,
            self.system,
            self.measurement,
            self._begun,
            self.rules,
        )
        return self._saved(state, margins, saved.step + stride)

    def _saved(self, state: "_State", margins: tuple[Array, ...], step: int) -> SavedStep:
        values, diagnostics = state.evaluation.values, state.evaluation.diagnostics
        residual = None if diagnostics is None else float(diagnostics.relative_residual)
        failure = step_failure(step, self.method.too_long, residual, float(values["train_loss"]))
        return SavedStep(step, state, values, margins, stack_solves([diagnostics]), {}, failure)


class _State(eqx.Module):
    """The state between two steps.

    **Attributes:**

    - `weights`, `integrals`: the weights, and the integrals over time.
    - `memory`: the memory of the method.
    - `evaluation`: what was measured at the weights. Its velocity is used for the next step.
    - `stop_memories`: the memories of the stop rules.
    """

    weights: PyTree
    integrals: dict[str, Array]
    memory: PyTree
    evaluation: Evaluation
    stop_memories: tuple[PyTree, ...]


@jit_for_steps
def _advance(
    state: _State,
    step: Int[Array, ""],
    stride: Int[Array, ""],
    method: AbstractStep,
    system: System,
    measurement: Measurement,
    start: InitialState,
    rules: tuple[AbstractStopRule, ...],
) -> tuple[_State, tuple[Array, ...]]:
    """The state after `stride` steps from `state` at `step`, and the margins of the stop rules there."""

    def moved(number: Int[Array, ""], carry: _Carry, velocity: PyTree) -> _Carry:
        return method.take(number, *carry, velocity, measurement, system)

    def body(index: Array, carry: _Carry) -> _Carry:
        number = step + index
        return moved(number, carry, measurement.flow.velocity(method.time(number), carry[0], system))

    first = moved(step, (state.weights, state.integrals, state.memory), state.evaluation.velocity)
    weights, integrals, memory = jax.lax.fori_loop(1, stride, body, first)
    now = method.time(step + stride)
    evaluation = measurement.evaluate(now, weights, integrals, system, start.memories)
    snapshot = measurement.snapshot(now, weights, system, integrals)
    stop_memories, margins = evaluate_rules(rules, snapshot, state.stop_memories)
    return _State(weights, integrals, memory, evaluation, stop_memories), margins
