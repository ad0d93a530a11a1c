"""Steps with all training samples each."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from .._core import jit_for_steps
from ..geometry import System
from ._measure import Evaluation, Measurement
from ._outcome import stack_solves, step_failure
from ._start import Start, start_run
from ._steps import AbstractCourse, AbstractStep, Reached
from .stop import AbstractStopRule, look

# Weights, integrals and the method's memory.
_Carry = tuple[PyTree, dict[str, Array], PyTree]


class FullBatch(AbstractCourse):
    """Steps along the velocity on all training samples."""

    _begun: Start

    def start(self, weights: PyTree) -> Reached:
        """The state before any step."""
        self._begun = start_run(weights, self.system, self.measurement, self.rules)
        begun = self._begun
        state = _State(weights, begun.integrals, self.method.init(weights), begun.evaluation, begun.stop_memories)
        return self._reached(state, self._begun.margins, 0)

    def advance(self, reached: Reached, stride: int) -> Reached:
        """The state after `stride` steps more, or where the first of them failed."""
        after = self._advance(reached, stride)
        if after.failure is None:
            return after
        # What went wrong on the way is seen in the state where it did. What is no number stays so: halve the stretch.
        while after.step - reached.step > 1:
            middle = self._advance(reached, (after.step - reached.step) // 2)
            reached, after = (middle, after) if middle.failure is None else (reached, middle)
        return after

    def _advance(self, reached: Reached, stride: int) -> Reached:
        state, margins = _advance(
            reached.state,
            jnp.asarray(reached.step),
            jnp.asarray(stride),
            self.method,
            self.system,
            self.measurement,
            self._begun,
            self.rules,
        )
        return self._reached(state, margins, reached.step + stride)

    def _reached(self, state: "_State", margins: tuple[Array, ...], step: int) -> Reached:
        values, diagnostics = state.evaluation.values, state.evaluation.diagnostics
        residual = None if diagnostics is None else float(diagnostics.relative_residual)
        failure = step_failure(step, self.method.too_long, residual, float(values["train_loss"]))
        return Reached(step, state, values, margins, stack_solves([diagnostics]), {}, failure)


class _State(eqx.Module):
    """Weights, integrals, the method's memory, what was measured there, and the stop rules' memories.

    The velocity in the evaluation is the next step's.
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
    start: Start,
    rules: tuple[AbstractStopRule, ...],
) -> tuple[_State, tuple[Array, ...]]:
    """`stride` steps from `state` at `step`, and the margins of the stop rules after them."""

    def moved(carry: _Carry, velocity: PyTree) -> _Carry:
        return method.take(*carry, velocity, measurement, system)

    def body(index: Array, carry: _Carry) -> _Carry:
        return moved(carry, measurement.flow.velocity(method.time(step + index), carry[0], system))

    first = moved((state.weights, state.integrals, state.memory), state.evaluation.velocity)
    weights, integrals, memory = jax.lax.fori_loop(1, stride, body, first)
    now = method.time(step + stride)
    evaluation = measurement.evaluate(now, weights, integrals, system, start.memories)
    snapshot = measurement.snapshot(now, weights, system, integrals)
    stop_memories, margins = look(rules, snapshot, state.stop_memories)
    return _State(weights, integrals, memory, evaluation, stop_memories), margins
