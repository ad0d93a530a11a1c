"""Training in continuous time."""

import time
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._core import ConfigError, Result, ResultCode
from ..flows import AbstractFlow, AbstractLinearisedFlow
from ..geometry import Decomposition, System
from ..problems import Problem
from ..solvers import choose_solver, stages_per_step
from ._arguments import DEFAULT_ATOL, DEFAULT_MAX_STEPS, DEFAULT_STOP, check_simulate
from ._controller import ResidualController, get_error_norm
from ._integrate import Arguments, Start, integrate, linearisation_at, measure, start_run
from ._measure import Evaluation, Measurement, Values, numbers_as_arrays
from ._outcome import FIRST_LOSS, direction_stats, integration_result, stack_solves, with_solve_warning
from ._progress import ProgressBar, progress_bar
from ._stop import AbstractStopRule, stop_rules
from ._trajectory import SimulationError, Trajectory, make_dataset, stack_rows

_LEADING_MODE = Decomposition(dense_limit=0, rank=1, power=2)
_SAVES_PER_DECADE = 10
_FIRST_STEP = 0.03  # of the time scale of the first loss decrease; the error control shortens it where that is too long
_FIRST_SAVE = 0.01  # of that time scale: features may move before the loss does
_HORIZON_DECADES = 18  # of flow time after the first save, when no t1 is given


def simulate(
    problem: Problem,
    model: Any,
    flow: AbstractFlow,
    *,
    t1: float | None = None,
    stop: Any = DEFAULT_STOP,
    saveat: Any = None,
    solver: Any = "auto",
    rtol: float | None = None,
    atol: float = DEFAULT_ATOL,
    error_norm: str = "function",
    metrics: tuple[Any, ...] = (),
    max_steps: int = DEFAULT_MAX_STEPS,
    progress: bool = False,
    throw: bool = True,
) -> Trajectory:
    """Integrate dw/dt = flow.velocity(t, w) from the model's present weights.

    **Arguments:**

    - `problem`, `model`, `flow`: what is trained, on what, and how. The model is not changed.
    - `t1`: flow time at which to end at the latest; None for no limit but the stop rule's.
    - `stop`: a stop rule, several in a tuple (the first met ends the run), or None to run to `t1`.
    - `saveat`: flow times at which to save, ascending; None for ten a decade, from a hundredth of the time scale on which the
      loss begins to fall. The start and the end are always saved.
    - `solver`: "auto" (the exponential solver wherever it wins; `trajectory.stats` says what was chosen and why),
      "exponential", the implicit "kvaerno5", the explicit "tsit5", "dopri5", "dopri8", "bosh3", or a Diffrax adaptive solver.
    - `rtol`, `atol`: tolerances of one step in the error norm. With "function" (the default) errors are measured in the
      training outputs relative to the present residual, beside the weights' own; with "weights" in the weights alone.
      `rtol` is dimensionless, None for the solver's own (5e-3 for the exponential one, 1e-3 for the others); `atol` has the
      units of sqrt(loss) and of the weights.
    - `metrics`: what to evaluate at the saved times beside the losses.
    - `max_steps`: steps allowed, accepted and rejected.
    - `progress`: show a bar in decades of loss. `throw`: raise `SimulationError` on failure instead of returning the run so
      far with its result code.

    **Returns:** a `Trajectory`; `trajectory.data` has the dimension "time", in flow time (its unit is the flow's:
    docs/time_units.md).

    **Raises:** `SimulationError` (with the run so far) if `throw` and the run failed; `ConfigError`, `ModelError`,
    `DataError`, `PrecisionError` for bad input, before anything is integrated.
    """
    began = time.perf_counter()
    check_simulate(
        t1=t1,
        stop=stop,
        saveat=saveat,
        solver=solver,
        rtol=rtol,
        atol=atol,
        error_norm=error_norm,
        max_steps=max_steps,
    )
    rules = stop_rules(stop)
    system, weights = join(problem, model, flow)
    measurement = numbers_as_arrays(Measurement(flow, tuple(metrics)))
    variables = measurement.variables(system)
    arrays_rules = numbers_as_arrays(rules)
    start: Start = start_run(weights, system, measurement, arrays_rules)
    dynamics = flow.dynamics
    linearised = isinstance(dynamics, AbstractLinearisedFlow)

    def stiffness() -> float | None:
        if t1 is None or start.evaluation.diagnostics is not None:
            return None
        # The fastest rate to a digit, by a few products with J J^T.
        rates, _, _ = linearisation_at(jnp.zeros(()), weights, system, measurement.flow, _LEADING_MODE)
        return t1 * float(jnp.max(rates))

    chosen = choose_solver(solver, linearised, linearised and dynamics.is_stiff, rtol, stiffness)
    rtol = chosen.rtol if rtol is None else rtol
    save_times, horizon = _save_times(saveat, t1, float(start.time_scale))
    settings = {
        "kind": "simulate",
        "t1": t1,
        "stop": rules,
        "saveat": None if saveat is None else np.asarray(saveat, dtype=float),
        "solver": chosen.name,
        "rtol": rtol,
        "atol": atol,
        "error_norm": error_norm,
        "metrics": tuple(metrics),
        "max_steps": max_steps,
    }
    already = rule_met(rules, start.margins)
    times, rows, last = [0.0], [start.evaluation.values], start.evaluation
    final_weights = weights
    stats: dict[str, Any] = {
        "solver": chosen.name,
        "solver_reason": chosen.reason,
        "num_steps": 0,
        "num_accepted_steps": 0,
        "num_rejected_steps": 0,
    }
    if already is not None:
        result = Result(ResultCode.STOP_RULE_MET_AT_START, f"{already.describe()} before any step was taken", 0.0)
    elif not np.isfinite(float(start.evaluation.values["train_loss"])):
        result = Result(ResultCode.NON_FINITE, FIRST_LOSS, 0.0)
    else:
        longest, *tolerances = numbers_as_arrays((float(horizon), float(rtol), float(atol)))
        controller = ResidualController(
            *tolerances,
            error_norm=get_error_norm(error_norm),
            monotone=linearised and dynamics.never_ascends(system),
            min_growth=chosen.min_growth,
            max_growth=chosen.max_growth,
            anticipation=chosen.anticipation,
        )
        bar = ProgressBar(float(start.evaluation.values["train_loss"]), rules, "flow time") if progress else None
        with progress_bar(bar) as number:
            args = Arguments(
                system,
                measurement,
                start.memories,
                arrays_rules,
                start.stop_memories,
                start.time_scale,
                longest,
                number,
            )
            solution = integrate(
                weights,
                start.integrals,
                args,
                chosen.solver,
                chosen.needs_linearisation,
                controller,
                jnp.asarray(save_times),
                longest,
                jnp.minimum(_FIRST_STEP * start.time_scale, longest),
                max_steps,
            )
            jax.block_until_ready(solution)
            jax.effects_barrier()  # the bar has heard of the last step
        end, final_weights, last = _end(solution, weights, system, measurement, start)
        saved_times, saved_rows = _saved(solution, end)
        times += [*saved_times, end]
        rows += [*saved_rows, last.values]
        result = integration_result(solution, chosen, rules, end, t1, last)
        stats |= _step_counts(solution, chosen.solver)
        if chosen.needs_linearisation:
            stats |= _linearisation_stats(end, final_weights, system, measurement.flow, chosen.solver)
    data = make_dataset(
        stack_rows(rows),
        variables,
        "time",
        np.asarray(times),
        {"long_name": "flow time", "units": "flow time", "reference": "docs/time_units.md"},
    )
    stats |= direction_stats(last.diagnostics)
    stats["wall_seconds"] = time.perf_counter() - began
    trajectory = Trajectory(
        data,
        system.model(final_weights),
        model,
        problem,
        flow,
        with_solve_warning(result, stack_solves([last.diagnostics])),
        stats,
        settings,
    )
    if throw and result.failed:
        raise SimulationError(trajectory)
    return trajectory


def join(problem: Problem, model: Any, flow: AbstractFlow) -> tuple[System, Any]:
    """The system of a run and its first weights.

    **Raises:** `ConfigError` if `flow` is no flow; what `System` raises.
    """
    if not isinstance(flow, AbstractFlow):
        raise ConfigError(f"flow = {flow!r}; expected a flow such as gnflow.flows.GradientFlow().")
    system = flow.system(problem, model)
    return system, system.weights(model)


def _save_times(saveat: Any, t1: float | None, time_scale: float) -> tuple[np.ndarray, float]:
    """Flow times to save at, and the end of the integration."""
    longest = _FIRST_SAVE * time_scale * 10.0**_HORIZON_DECADES
    if saveat is None:
        # A fixed number of slots, so that runs of another length use the same compiled program; those past the end cost
        # nothing.
        decades = np.arange(_HORIZON_DECADES * _SAVES_PER_DECADE + 1) / _SAVES_PER_DECADE
        horizon = longest if t1 is None else t1
        return np.minimum(_FIRST_SAVE * time_scale * 10.0**decades, horizon), horizon
    times = np.atleast_1d(np.asarray(saveat, dtype=float))
    # Without t1 the run goes on to its stop rule, after the last save.
    return times, max(times[-1], longest) if t1 is None else t1


def rule_met(rules: tuple[AbstractStopRule, ...], margins: tuple[Array, ...]) -> AbstractStopRule | None:
    """The first of the rules whose margin is used up, or None."""
    for rule, margin in zip(rules, margins, strict=True):
        if float(margin) <= 0:
            return rule
    return None


def _end(
    solution: diffrax.Solution, first_weights: PyTree, system: System, measurement: Measurement, start: Start
) -> tuple[float, PyTree, Evaluation]:
    """Time, weights (a tree like `first_weights`) and what is measured at the end of an integration."""
    assert solution.ts is not None
    assert solution.ys is not None
    end = solution.ts[1][0]
    leaves, integrals, _ = jax.tree.map(lambda leaf: leaf[0], solution.ys[1])
    weights = jax.tree.unflatten(jax.tree.structure(first_weights), leaves)
    return float(end), weights, measure(end, weights, integrals, system, measurement, start.memories)


def _saved(solution: diffrax.Solution, end: float) -> tuple[list[float], list[Values]]:
    """Times and rows saved strictly inside the run; slots that were not reached hold inf, or repeat the end."""
    assert solution.ts is not None
    assert solution.ys is not None
    times = np.asarray(solution.ts[0])
    columns = jax.device_get(solution.ys[0])
    inside = np.flatnonzero((times > 0) & (times < end))
    return [float(times[i]) for i in inside], [{name: column[i] for name, column in columns.items()} for i in inside]


def _linearisation_stats(
    end: float, weights: PyTree, system: System, flow: AbstractFlow, solver: Any
) -> dict[str, int | float]:
    """How much of the flow's Jacobian the solver saw, and at the end of the run how well, where it was not all of it."""
    arguments = (jnp.asarray(end), weights, system, flow, solver.decomposition)
    rank = eqx.filter_eval_shape(linearisation_at, *arguments)[0].shape[0]
    stats: dict[str, int | float] = {"linearisation_rank": rank, "linearisation_size": system.problem.y_train.size}
    if rank < system.problem.y_train.size:
        _, residual, left_out = linearisation_at(*arguments)
        stats |= {"final_linearisation_residual": float(residual), "final_fastest_rate_left_out": float(left_out)}
    return stats


def _step_counts(solution: diffrax.Solution, solver: diffrax.AbstractAdaptiveSolver) -> dict[str, int]:
    names = ("num_steps", "num_accepted_steps", "num_rejected_steps")
    counts = {name: int(solution.stats[name]) for name in names}
    stages = stages_per_step(solver)
    if stages is not None:
        counts["num_velocity_evaluations"] = stages * counts["num_steps"] + 1
    return counts
