"""The one call of `diffrax.diffeqsolve`, compiled once for each set of shapes and parts."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from ..flows import AbstractFlow, AbstractLinearisedFlow
from ..geometry import Decomposition, Snapshot, System
from ..solvers import LinearisedTerm
from ._controller import ResidualController
from ._global_error import ErrorCarryingSolver
from ._measure import Evaluation, Measurement, Values
from ._probe import PROBED, Probe
from ._stop_time import StopTimeBisection
from .stop import AbstractStopRule, loss_time_scale

# What stands in a Diffrax solver for a tolerance that is the step-size controller's.
_FROM_CONTROLLER = getattr(diffrax.Kvaerno5().root_finder, "rtol")  # noqa: B009 (not declared for all root finders)


class Start(eqx.Module):
    """The first state of a run and what is remembered of it.

    **Attributes:** `memories`: of the metrics; `stop_memories`, `margins`: of the stop rules, at the start; `time_scale`:
    (L - L*)/|dL/dt|, the flow time in which the loss would vanish at its first rate; `evaluation`: the first saved row, and w'.
    """

    memories: tuple[PyTree, ...]
    stop_memories: tuple[PyTree, ...]
    margins: tuple[Array, ...]
    time_scale: Float[Array, ""]
    integrals: dict[str, Array]
    evaluation: Evaluation


class Arguments(eqx.Module):
    """What the compiled integration needs beside the state."""

    system: System
    measurement: Measurement
    memories: tuple[PyTree, ...]
    rules: tuple[AbstractStopRule, ...]
    stop_memories: tuple[PyTree, ...]
    time_scale: Float[Array, ""]
    horizon: Float[Array, ""]
    progress: Array | None
    probe: Probe | None


def start_run(weights: PyTree, system: System, measurement: Measurement, rules: tuple[AbstractStopRule, ...]) -> Start:
    """Evaluate everything at t = 0."""
    memories, stop_memories, integrals = remember(weights, system, measurement, rules)
    # The program that measures the end: metrics may take as long to compile as the integration.
    evaluation = measure(jnp.zeros(()), weights, integrals, system, measurement, memories)
    margins, time_scale = _first_scales(weights, evaluation, system, measurement.flow, rules, stop_memories)
    return Start(memories, stop_memories, margins, time_scale, integrals, evaluation)


@eqx.filter_jit
def remember(
    weights: PyTree, system: System, measurement: Measurement, rules: tuple[AbstractStopRule, ...]
) -> tuple[tuple[PyTree, ...], tuple[PyTree, ...], dict[str, Array]]:
    """What metrics and stop rules remember of the start, and the integrals' zeros."""
    snapshot = measurement.snapshot(jnp.zeros(()), weights, system, {})
    stop_memories = tuple(rule.prepare(snapshot) for rule in rules)
    return measurement.prepare(weights, system), stop_memories, measurement.initial_integrals(system)


@eqx.filter_jit
def _first_scales(
    weights: PyTree,
    evaluation: Evaluation,
    system: System,
    flow: AbstractFlow,
    rules: tuple[AbstractStopRule, ...],
    stop_memories: tuple[PyTree, ...],
) -> tuple[tuple[Array, ...], Float[Array, ""]]:
    """The margins of the stop rules at the start, and the time scale of the loss."""
    known = evaluation.velocity, evaluation.diagnostics
    rests = flow.dynamics.rests_with_gradient
    snapshot = Snapshot(jnp.zeros(()), weights, system, lambda: known, rests_with_gradient=rests)
    margins = tuple(rule.margin(snapshot, memory) for rule, memory in zip(rules, stop_memories, strict=True))
    return margins, loss_time_scale(snapshot)


@eqx.filter_jit
def measure(
    time: Float[Array, ""],
    weights: PyTree,
    integrals: dict[str, Array],
    system: System,
    measurement: Measurement,
    memories: tuple[PyTree, ...],
) -> Evaluation:
    """All variables and w' at one state."""
    return measurement.evaluate(time, weights, integrals, system, memories)


@eqx.filter_jit
def integrate(
    weights: PyTree,
    integrals: dict[str, Array],
    args: Arguments,
    solver: diffrax.AbstractAdaptiveSolver,
    needs_linearisation: bool,
    controller: ResidualController,
    save_times: Float[Array, " saves"],
    t1: Float[Array, ""],
    dt0: Float[Array, ""],
) -> diffrax.Solution:
    """Integrate from t = 0; rows of values at `save_times`, the state's leaves and the bisected rules' margins at the end.

    The controller's state at the end holds the margins of the others.
    """
    bisected = any(rule.bisected for rule in args.rules)
    subs = [diffrax.SubSaveAt(ts=save_times, fn=_values), diffrax.SubSaveAt(t1=True, fn=_state_and_margins)]
    # The margin falls along the step (flip), to a root known to 1e-6 in time and in the logarithm of the loss.
    root_finder = StopTimeBisection(rtol=1e-6, atol=1e-6, flip=True)
    event = diffrax.Event(_smallest_margin, root_finder, direction=False) if bisected else None
    return diffrax.diffeqsolve(
        _linearised_term(args) if needs_linearisation else diffrax.ODETerm(_vector_field),
        ErrorCarryingSolver(_with_tolerances(solver, controller)),
        t0=0.0,
        t1=t1,
        dt0=dt0,
        y0=(weights, integrals),
        args=args,
        saveat=diffrax.SaveAt(subs=subs, controller_state=True),
        stepsize_controller=controller,
        event=event,
        # Nothing differentiates through a run: plain loops compile faster than those that keep checkpoints.
        adjoint=diffrax.ForwardMode(),
        max_steps=None,  # the controller counts
        throw=False,
    )


def _with_tolerances(
    solver: diffrax.AbstractAdaptiveSolver, controller: ResidualController
) -> diffrax.AbstractAdaptiveSolver:
    """`solver` with the controller's tolerances for its implicit stages, as Diffrax gives them to one that is not wrapped."""
    if not isinstance(solver, diffrax.AbstractImplicitSolver):
        return solver
    told = {"rtol": controller.tolerated.relative, "atol": controller.tolerated.weights, "norm": optx.rms_norm}
    names = [name for name in told if getattr(solver.root_finder, name) is _FROM_CONTROLLER]
    values = [told[name] for name in names]
    return eqx.tree_at(lambda s: [getattr(s.root_finder, name) for name in names], solver, values) if names else solver


@eqx.filter_jit
def linearisation_at(
    time: Float[Array, ""], weights: PyTree, system: System, flow: AbstractFlow, decomposition: Decomposition
) -> tuple[Float[Array, " rank"], Float[Array, ""], Float[Array, ""]]:
    """The rates of the linearised flow, the relative residual of its modes, and the fastest rate that is left out."""
    assert isinstance(flow.dynamics, AbstractLinearisedFlow)
    linearisation = flow.dynamics.linearisation(time, system.tangent(weights), system, decomposition)
    return linearisation.rates, linearisation.relative_residual, linearisation.left_out


class _Integrands(eqx.Module):
    """The rates of change of the integral metrics, as a function of w' alone."""

    measurement: Measurement
    system: System

    def __call__(self, velocity: PyTree) -> dict[str, Array]:
        return self.measurement.integrands(velocity, self.system)


def _linearised_term(args: Arguments) -> LinearisedTerm:
    return LinearisedTerm(args.measurement.flow.dynamics, args.system, _Integrands(args.measurement, args.system))


def _vector_field(time: Any, state: Any, args: Arguments) -> tuple[PyTree, dict[str, Array]]:
    velocity = args.measurement.flow.velocity(time, state[0], args.system)
    return velocity, args.measurement.integrands(velocity, args.system)


def _values(time: Array, state: tuple[PyTree, dict[str, Array]], args: Arguments) -> Values:
    def evaluate() -> Values:
        values = args.measurement.evaluate(time, state[0], state[1], args.system, args.memories).values
        return values if args.probe is None else {**values, PROBED: args.probe.outputs(args.system, state[0])}

    def nothing() -> Values:
        return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(evaluate))

    # The slots past the end of the run all hold the end, which is measured once, afterwards.
    return jax.lax.cond(time < args.horizon, evaluate, nothing)


def _margins(time: Array, state: tuple[PyTree, dict[str, Array]], args: Arguments) -> Float[Array, " rules"]:
    snapshot = args.measurement.snapshot(jnp.asarray(time), state[0], args.system, state[1])
    pairs = zip(args.rules, args.stop_memories, strict=True)
    return jnp.asarray([rule.margin(snapshot, memory) for rule, memory in pairs if rule.bisected])


def _smallest_margin(t: Array, y: Any, args: Arguments, **_: Any) -> Array:
    # One condition for all rules: the bisection of the event's time takes a scalar.
    return jnp.min(_margins(t, y, args))


def _state_and_margins(
    time: Array, state: tuple[PyTree, dict[str, Array]], args: Arguments
) -> tuple[list[Array], dict[str, Array], Float[Array, " rules"]]:
    # The weights as a list of leaves: a tree with an empty tuple in it cannot be saved (Equinox's loops refuse it).
    weights, integrals = state
    return jax.tree.leaves(weights), integrals, _margins(time, state, args)
