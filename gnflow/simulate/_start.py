"""Compiled programs that evaluate one state, mostly the first. Each compiles once for each set of shapes and parts."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import count_operations, jit_for_states
from ..flows import AbstractFlow
from ..geometry import Decomposition, Snapshot, System
from ..solvers import LinearisedTerm
from ._measure import Evaluation, Measurement
from .stop import AbstractStopRule, loss_time_scale


class InitialState(eqx.Module):
    """What is measured and remembered of the first state of a run.

    **Attributes:**

    - `memories`: what the metrics remember.
    - `stop_memories`, `margins`: the memories and margins of the stop rules.
    - `time_scale`: (L - L*)/|dL/dt|, the flow time in which the loss would vanish at its first rate.
    - `integrals`: a zero for each integral metric.
    - `evaluation`: the first saved row, and w'.
    """

    memories: tuple[PyTree, ...]
    stop_memories: tuple[PyTree, ...]
    margins: tuple[Array, ...]
    time_scale: Float[Array, ""]
    integrals: dict[str, Array]
    evaluation: Evaluation


def evaluate_start(
    weights: PyTree, system: System, measurement: Measurement, rules: tuple[AbstractStopRule, ...]
) -> InitialState:
    """Evaluate everything at t = 0."""
    memories, stop_memories, integrals = remember(weights, system, measurement, rules)
    # The same program measures the end of the run. Metrics may take as long to compile as the integration.
    evaluation = measure(jnp.zeros(()), weights, integrals, system, measurement, memories)
    margins, time_scale = _first_scales(weights, evaluation, system, measurement.flow, rules, stop_memories)
    return InitialState(memories, stop_memories, margins, time_scale, integrals, evaluation)


@jit_for_states
def remember(
    weights: PyTree, system: System, measurement: Measurement, rules: tuple[AbstractStopRule, ...]
) -> tuple[tuple[PyTree, ...], tuple[PyTree, ...], dict[str, Array]]:
    """The memories of metrics and stop rules at the start, and the first values (0) of the integrals."""
    snapshot = measurement.snapshot(jnp.zeros(()), weights, system, {})
    stop_memories = tuple(rule.prepare(snapshot) for rule in rules)
    return measurement.prepare(weights, system), stop_memories, measurement.initial_integrals(weights)


@jit_for_states
def _first_scales(
    weights: PyTree,
    evaluation: Evaluation,
    system: System,
    flow: AbstractFlow,
    rules: tuple[AbstractStopRule, ...],
    stop_memories: tuple[PyTree, ...],
) -> tuple[tuple[Array, ...], Float[Array, ""]]:
    """The margins of the stop rules and the time scale of the loss at the start."""
    known = evaluation.velocity, evaluation.diagnostics
    rests, decay = flow.dynamics.rests_with_gradient, flow.dynamics.decay(weights, system)
    snapshot = Snapshot(jnp.zeros(()), weights, system, lambda: known, rests_with_gradient=rests, decay=decay)
    margins = tuple(rule.margin(snapshot, memory) for rule, memory in zip(rules, stop_memories, strict=True))
    return margins, loss_time_scale(snapshot)


@jit_for_states
def measure(
    time: Float[Array, ""],
    weights: PyTree,
    integrals: dict[str, Array],
    system: System,
    measurement: Measurement,
    memories: tuple[PyTree, ...],
) -> Evaluation:
    """All variables and w' at one state, compiled."""
    return measurement.evaluate(time, weights, integrals, system, memories)


@jit_for_states
def last_time_scale(weights: PyTree, evaluation: Evaluation, system: System) -> Float[Array, ""]:
    """(L - L*)/|dL/dt| at the end of a run."""
    return loss_time_scale(Snapshot(jnp.zeros(()), weights, system, lambda: (evaluation.velocity, None)))


def linearise_at(
    time: Float[Array, ""], weights: PyTree, system: System, flow: AbstractFlow, decomposition: Decomposition
) -> tuple[Float[Array, " rank"], Float[Array, ""], Float[Array, ""]]:
    """The rates of the linearised flow, the relative residual of its modes, and the fastest rate that they leave out."""
    linearisation = LinearisedTerm(flow.dynamics, system).linearise(time, weights, decomposition)
    return linearisation.all_rates, linearisation.relative_residual, linearisation.left_out


linearisation_at = jit_for_states(linearise_at)


def velocity_work(weights: PyTree, system: System, dynamics: Any) -> float:
    """The number of operations of one velocity (`count_operations`)."""
    return count_operations(_velocity, dynamics, weights, system)


def linearisation_work(weights: PyTree, system: System, dynamics: Any) -> float:
    """The number of operations of one linearisation of an `AbstractLinearisedFlow`."""
    return count_operations(_linearisation, dynamics, weights, system)


def _velocity(dynamics: Any, weights: PyTree, system: System) -> PyTree:
    return dynamics.velocity(jnp.zeros(()), weights, system)


def _linearisation(dynamics: Any, weights: PyTree, system: System) -> list[Array]:
    made = dynamics.linearisation(jnp.zeros(()), system.tangent(weights), system, Decomposition())
    return [made.left, made.right, made.rates]
