"""The compiled programs of an integration: a segment of steps by Diffrax, and evaluations inside its last step."""

import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from .._core import jit_for_states, jit_for_steps
from ..geometry import System
from ..solvers import LinearisedTerm, PairTerm, StepReport
from ._controller import ControllerState, ResidualController
from ._global_error import CarriedState, ErrorCarryingSolver, LastStep
from ._measure import Measurement
from ._probe import Probe
from .stop import AbstractStopRule

# The placeholder of Diffrax for a tolerance that the root finder takes from the step-size controller.
_FROM_CONTROLLER = getattr(diffrax.Kvaerno5().root_finder, "rtol")  # noqa: B009 (not declared for all root finders)


class Arguments(eqx.Module):
    """What the compiled integration needs beside the state.

    **Attributes:**

    - `system`, `measurement`: the problem joined with the model's structure, and what is measured.
    - `rules`: the stop rules.
    - `stop_memories`, `first_margins`: their memories and margins at the start.
    - `time_scale`: the flow time scale of the loss's first decrease, as in `InitialState`.
    - `horizon`: the flow time at which the run ends at the latest.
    - `probe`: the test inputs that are watched, None without test data.
    """

    system: System
    measurement: Measurement
    rules: tuple[AbstractStopRule, ...]
    stop_memories: tuple[PyTree, ...]
    first_margins: tuple[Float[Array, ""], ...]
    time_scale: Float[Array, ""]
    horizon: Float[Array, ""]
    probe: Probe | None


class Segment(eqx.Module):
    """Where an integration stands between two segments.

    **Attributes:**

    - `time`: the flow time.
    - `weights`, `integrals`: the state.
    - `solver_state`, `controller_state`: the states of solver and controller, as Diffrax carries them.
    - `num_steps`, `num_accepted_steps`: the steps of the last segment.
    - `result`: how the segment ended: `event_occurred` after a pause or where a rule is met.
    """

    time: Float[Array, ""]
    weights: PyTree
    integrals: dict[str, Array]
    solver_state: PyTree
    controller_state: PyTree
    num_steps: Any
    num_accepted_steps: Any
    result: diffrax.RESULTS

    @property
    def last_step(self) -> LastStep:
        """The last accepted step."""
        return self.solver_state.last

    @property
    def last_report(self) -> StepReport:
        """The report on the last step, for a solver that gives one."""
        return self.solver_state.inner.report


@jit_for_states
def begin(
    weights: PyTree,
    integrals: dict[str, Array],
    args: Arguments,
    solver: diffrax.AbstractAdaptiveSolver,
    needs_linearisation: bool,
    controller: ResidualController,
    first_step: Float[Array, ""],
) -> Segment:
    """The state before any step; the first step will have the length `first_step`."""
    start = jnp.zeros(())
    states = _begun(start, (weights, integrals), args, solver, needs_linearisation, controller, first_step)
    zero = jnp.zeros((), dtype=int)
    return Segment(start, weights, integrals, *states, zero, zero, diffrax.RESULTS.successful)


@jit_for_states
def changed(
    before: Segment,
    args: Arguments,
    solver: diffrax.AbstractAdaptiveSolver,
    needs_linearisation: bool,
    controller: ResidualController,
) -> Segment:
    """`before` with another `solver`. The length of the next step and the error carried so far stay."""
    now, control = before.time, before.controller_state
    state = before.weights, before.integrals
    following = control.next_end - now
    fresh, restarted = _begun(now, state, args, solver, needs_linearisation, controller, following)
    carried = dataclasses.replace(fresh, error=before.solver_state.error, added=before.solver_state.added)
    # The ratio of error to length^order belongs to the last solver: one of another order has to learn its own.
    memory = dataclasses.replace(control.memory, difficulty=jnp.zeros(()))
    control = control._replace(rule=restarted.rule, memory=memory)
    return dataclasses.replace(before, solver_state=carried, controller_state=control)


@jit_for_steps
def advance(
    before: Segment,
    args: Arguments,
    solver: diffrax.AbstractAdaptiveSolver,
    needs_linearisation: bool,
    controller: ResidualController,
) -> Segment:
    """Take steps from where `before` stands until the controller pauses or something ends the run.

    Diffrax gets neither times to save at nor a first step length, because it would check them by a callback from the compiled
    program. A program without callbacks can be stored on disk (docs/devdocs/design.md).
    """
    found = diffrax.diffeqsolve(
        _term(args, needs_linearisation),
        _carrying(solver, controller),
        t0=before.time,
        t1=args.horizon,
        dt0=None,
        y0=(before.weights, before.integrals),
        args=args,
        saveat=diffrax.SaveAt(t1=True, fn=_leaves, solver_state=True, controller_state=True),
        stepsize_controller=controller.resumed(before.controller_state.next_end),
        solver_state=before.solver_state,
        controller_state=before.controller_state,
        # Nothing differentiates through a run, and plain loops compile faster than those with checkpoints.
        adjoint=diffrax.ForwardMode(),
        max_steps=None,  # the controller counts
        throw=False,
    )
    assert found.ts is not None
    assert found.ys is not None
    leaves, integrals = jax.tree.map(lambda leaf: leaf[0], found.ys)
    return Segment(
        found.ts[0],
        jax.tree.unflatten(jax.tree.structure(before.weights), leaves),
        integrals,
        found.solver_state,
        found.controller_state,
        # The dtype that they begin with: with another one the next segment would be compiled again.
        jnp.asarray(found.stats["num_steps"], dtype=int),
        jnp.asarray(found.stats["num_accepted_steps"], dtype=int),
        found.result,
    )


@jit_for_states
def inside(
    time: Float[Array, ""], last: LastStep, solver: diffrax.AbstractAdaptiveSolver, system: System, probe: Probe | None
) -> tuple[PyTree, dict[str, Array], Array | None]:
    """Weights, integrals and the outputs (n, C) at the probe's inputs, at a `time` within the last step."""
    weights, integrals = last.at(time, solver)
    return weights, integrals, None if probe is None else probe.outputs(system, weights)


@jit_for_states
def margins_inside(
    time: Float[Array, ""], last: LastStep, solver: diffrax.AbstractAdaptiveSolver, args: Arguments
) -> Float[Array, " rules"]:
    """The margins (rules,) at a `time` within the last step; infinite for rules that are not bisected."""
    weights, integrals = last.at(time, solver)
    snapshot = args.measurement.snapshot(time, weights, args.system, integrals)
    pairs = zip(args.rules, args.stop_memories, strict=True)
    margins = [rule.margin(snapshot, memory) if rule.bisected else jnp.inf for rule, memory in pairs]
    return jnp.asarray(margins)


def _begun(
    time: Float[Array, ""],
    state: tuple[PyTree, dict[str, Array]],
    args: Arguments,
    solver: diffrax.AbstractAdaptiveSolver,
    needs_linearisation: bool,
    controller: ResidualController,
    first_step: Float[Array, ""],
) -> tuple[CarriedState, ControllerState]:
    """The states of the solver and of the controller before a first step at `time`."""
    term, carrying = _term(args, needs_linearisation), _carrying(solver, controller)
    end, controller_state = controller.init(
        term, time, args.horizon, state, first_step, args, carrying.func, carrying.error_order(term)
    )
    return carrying.init(term, time, end, state, args), controller_state


def _leaves(time: Any, state: tuple[PyTree, dict[str, Array]], args: Any) -> tuple[list[Array], dict[str, Array]]:
    # Weights are saved as a list of leaves, because Equinox's loops refuse a tree with an empty tuple in it.
    weights, integrals = state
    return jax.tree.leaves(weights), integrals


def _carrying(solver: diffrax.AbstractAdaptiveSolver, controller: ResidualController) -> ErrorCarryingSolver:
    """`solver` wrapped to carry the error of the run.

    The root finder of an implicit solver gets the controller's tolerances here. Diffrax would do that itself, but does not look
    inside a wrapped solver.
    """
    if not isinstance(solver, diffrax.AbstractImplicitSolver):
        return ErrorCarryingSolver(solver)
    tolerated = controller.tolerated
    told = {"rtol": tolerated.relative, "atol": tolerated.weights, "norm": optx.rms_norm}
    names = [name for name in told if getattr(solver.root_finder, name) is _FROM_CONTROLLER]
    values = [told[name] for name in names]
    found = eqx.tree_at(lambda s: [getattr(s.root_finder, name) for name in names], solver, values) if names else solver
    return ErrorCarryingSolver(found)


class _Integrands(eqx.Module):
    """The rates of change of the integral metrics as a function of w'."""

    measurement: Measurement

    def __call__(self, velocity: PyTree) -> dict[str, Array]:
        return self.measurement.integrands(velocity)


def _term(args: Arguments, needs_linearisation: bool) -> Any:
    if not needs_linearisation:
        return PairTerm(_vector_field)
    integrands = _Integrands(args.measurement)
    return LinearisedTerm(args.measurement.flow.dynamics, args.system, integrands, runs_forwards=True)


def _vector_field(time: Any, state: Any, args: Arguments) -> tuple[PyTree, dict[str, Array]]:
    velocity = args.measurement.flow.velocity(time, state[0], args.system)
    return velocity, args.measurement.integrands(velocity)
