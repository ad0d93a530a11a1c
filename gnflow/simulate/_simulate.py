"""Training in continuous time."""

import functools
import importlib.metadata
import inspect
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._core import (
    CompileClock,
    ConfigError,
    GnflowError,
    PrecisionError,
    is_own_class,
    on_one_line,
    require_bool,
    require_instance,
    shown,
)
from ..flows import AbstractFlow
from ..geometry import System
from ..models._single_precision import in_single_precision
from ..problems import AbstractProblem
from ..solvers import AbstractLinearisedSolver, SolverChoice, choose_solver
from ._accuracy import (
    DEFAULT_RTOL,
    NO_STEP,
    UNKNOWN,
    Errors,
    Judged,
    accurate_solution,
    only_solution,
    promised_accuracy,
)
from ._arguments import DEFAULT_ATOL, DEFAULT_MAX_STEPS, DEFAULT_STOP, check_simulate, require_concrete, times_to_save
from ._checkpoint import Checkpoints, identity_of
from ._controller import get_error_norm
from ._measure import Measurement, as_metrics, numbers_as_arrays
from ._outcome import End, direction_stats, first_loss_not_finite, met_at_start, stack_solves, with_solve_warning
from ._probe import Probe
from ._progress import progress_bar
from ._segments import Arguments
from ._situation import situation_of
from ._solution import Integration, linearisation_stats
from ._start import InitialState, evaluate_start
from ._trajectory import Trajectory, checked, make_dataset, stack_rows
from .stop import AbstractStopRule, Stationary, stop_rules, with_stationary

_SAVES_PER_DECADE = 10
_FIRST_SAVE = 0.01  # share of the loss's first time scale: features may move before the loss does
_HORIZON_DECADES = 18  # of flow time after the first save, when no t1 is given


def simulate(
    problem: AbstractProblem,
    model: Any,
    flow: AbstractFlow,
    *,
    t1: float | None = None,
    stop: Any = DEFAULT_STOP,
    saveat: Any = None,
    saveat_weights: Any = None,
    solver: Any = "auto",
    rtol: float | None = None,
    atol: float = DEFAULT_ATOL,
    error_norm: str = "function",
    metrics: tuple[Any, ...] = (),
    max_steps: int = DEFAULT_MAX_STEPS,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
    throw: bool = True,
) -> Trajectory:
    """Integrate dw/dt = flow.velocity(t, w) from the model's present weights.

    **Arguments:**

    - `problem`, `model`, `flow`: the data and loss, the network, and the flow that trains it. The model is not changed.
    - `t1`: the latest flow time. With None only the stop rules end the run. (A run that meets no rule within 1e16 times the
      time scale on which the loss begins to fall ends with the failure `horizon_reached`.)
    - `stop`: a stop rule, several in a tuple (the first one met ends the run), or None to run to `t1`. By default a run ends at
      1e-8 of its first loss; with a residual problem it ends where it stands still. Unless it is None, `Stationary` is added: a
      run that stands still ends with the code `stationary`, which is not a failure (docs/stop_rules.md).
    - `saveat`: flow times at which to save, ascending. None saves ten times a decade, from a hundredth of the time scale on
      which the loss begins to fall. The start and the end are always saved.
    - `saveat_weights`: flow times at which to keep the weights, for `Trajectory.model_at`, ascending and up to `t1`. They are
      times to save at too. The weights there come from the solver's interpolation inside a step, and are as accurate as what is
      measured there. Those at the start and at the end are always kept. A run that a stop rule ends earlier keeps none after
      its end.
    - `solver`: "auto", "exponential", "exponential_rosenbrock" with the whole Jacobian, the implicit "kvaerno5", "stabilised"
      for gradient flow without any matrix, the explicit "tsit5", "dopri5", "dopri8", "bosh3", or an adaptive Diffrax solver.
      "auto" compares the work that each would take, and may change the solver along the run; `trajectory.stats` says which
      solvers were chosen and why.
    - `rtol`, `atol`: tolerances for the error of one step in the error norm. `rtol` is dimensionless. None begins with 1e-3,
      and tightens it if the error of the whole run would exceed the promised one (docs/choosing.md, How accurate a run is).
      `atol` has the units of sqrt(loss); for the weights its unit is the rms of the first weights or 1, whichever is smaller.
    - `error_norm`: "function" measures errors in the training outputs, relative to the present residual, and in the weights;
      "weights" measures them in the weights alone.
    - `metrics`: what to evaluate at the saved times beside the losses.
    - `max_steps`: the number of steps, accepted and rejected, that one solution may take. A second solution, made to measure
      the error of another, may take eight times as many steps as that one, but at most four times `max_steps`.
    - `checkpoint`: a folder to which a long run writes its state once a minute, at its end and when it is interrupted. If the
      same run is started again, also by another process, it goes on from there to the same result; a run that had ended is not
      integrated again. The folder is made if it does not exist, and nothing in it is ever removed. The run is recognised by its
      numbers and arrays, and by the names and code of your own functions and classes, but not by the code of what these call:
      name another folder when you change that.
    - `progress`: whether to show a bar in decades of loss.
    - `throw`: whether to raise `SimulationError` on failure instead of returning the run so far with its result code.

    **Returns:** a `Trajectory`. `trajectory.data` has the dimension "time", in flow time (its unit depends on the flow:
    docs/time_units.md).

    **Raises:**

    - `SimulationError` (with the run so far) if `throw` and the run failed.
    - `RunInterrupted`, a `KeyboardInterrupt` with the run so far, if the user interrupts it. The run notices an interrupt after
      half a second or one step, whichever is longer.
    - `ConfigError`, `ModelError`, `DataError`, `PrecisionError` for bad input, before anything is integrated.
    - `RunFolderError`, also before, if the folder `checkpoint` holds something else or another run.
    """
    return _simulate(accurate_solution, False, **locals())


def simulate_once(*arguments: Any, steps_to_saves: bool = False, **options: Any) -> Trajectory:
    """`simulate` with one solution at one tolerance, whatever its estimated error is.

    It is for callers that know the error from elsewhere.

    **Arguments:**

    - `arguments`, `options`: those of `simulate`.
    - `steps_to_saves`: whether steps end at the times to save at. What is saved is then as accurate as the steps, because
      nothing is interpolated.
    """
    bound = inspect.signature(simulate).bind(*arguments, **options)
    bound.apply_defaults()
    return _simulate(only_solution, steps_to_saves, **bound.arguments)


def _simulate(
    judge: Callable[..., Judged],
    steps_to_saves: bool,
    *,
    problem: AbstractProblem,
    model: Any,
    flow: AbstractFlow,
    t1: float | None,
    stop: Any,
    saveat: Any,
    saveat_weights: Any,
    solver: Any,
    rtol: float | None,
    atol: float,
    error_norm: str,
    metrics: tuple[Any, ...],
    max_steps: int,
    checkpoint: str | os.PathLike[str] | None,
    progress: bool,
    throw: bool,
) -> Trajectory:
    """`simulate` with `judge` to decide which solution is accurate enough, and `steps_to_saves` as in `simulate_once`."""
    began, clock = time.perf_counter(), CompileClock()
    require_concrete("simulate", problem, model, flow, t1, stop, saveat, saveat_weights, rtol, atol, metrics)
    check_simulate(
        t1=t1,
        stop=stop,
        saveat=saveat,
        solver=solver,
        rtol=rtol,
        atol=atol,
        error_norm=error_norm,
        max_steps=max_steps,
        saveat_weights=saveat_weights,
    )
    t1 = None if t1 is None else float(t1)
    atol, max_steps = float(atol), int(max_steps)
    progress, throw = require_bool(ConfigError, progress=progress, throw=throw)
    system, weights = system_and_weights(problem, model, flow)
    if stop is DEFAULT_STOP and not system.problem.has_samples:
        # Residuals may have an infimum above 0, so that any share of the first loss may be out of reach.
        stop = Stationary()
    given_rules = stop_rules(stop)
    metrics = as_metrics(metrics)
    settings: dict[str, Any] = {
        "kind": "simulate",
        "t1": t1,
        "stop": given_rules,
        "saveat": None if saveat is None else times_to_save(saveat, t1),
        "saveat_weights": None if saveat_weights is None else times_to_save(saveat_weights, t1, "saveat_weights"),
        "solver": solver,
        "rtol": rtol,
        "atol": atol,
        "error_norm": error_norm,
        "metrics": metrics,
        "max_steps": max_steps,
    }
    measurement = numbers_as_arrays(Measurement.of(flow, metrics, system))
    variables = measurement.variables(system)
    all_rules = with_stationary(given_rules)
    first_rtol = DEFAULT_RTOL if rtol is None else float(rtol)
    rules = tuple(rule.at_accuracy(first_rtol) for rule in all_rules)
    situation = situation_of(system, weights, measurement.flow, t1, lambda: start)

    @functools.cache
    def choose(tolerance: float, ran_out: bool = False) -> SolverChoice:
        return choose_solver(solver, tolerance, situation, ran_out)

    if solver != "auto":
        choose(first_rtol)  # raises for a solver that does not fit, before anything is computed
    checkpoints = None
    if checkpoint is not None:
        # After all checks of the arguments. Otherwise a refused call would leave its identity in the folder, and the corrected
        # call would find the folder of another run.
        version = importlib.metadata.version("gnflow")
        identity = identity_of(problem=problem, model=model, flow=flow, settings=settings, version=version)
        checkpoints = Checkpoints(checkpoint, identity)
    with progress_bar(progress, rules, "flow time") as bar:
        start: InitialState = evaluate_start(weights, system, measurement, numbers_as_arrays(rules))
        if bar is not None:
            bar.begin(float(start.evaluation.values["train_loss"]))
        chosen = choose(first_rtol)
        save_times, horizon = _save_times(saveat, t1, float(start.time_scale))
        weight_times = settings["saveat_weights"]
        if weight_times is not None:
            save_times = np.union1d(save_times, weight_times)
            horizon = max(horizon, weight_times[-1])
        settings |= {"solver": _as_setting(chosen), "rtol": first_rtol}
        met = rules_met(rules, start.margins)
        already = next((rule for rule in met if rule.is_over(0.0, weights, system, flow, horizon)), None)
        times, rows, last = np.zeros(1), [start.evaluation.values], start.evaluation
        solves = stack_solves([last.diagnostics])
        final_weights, kept = weights, {}
        stats: dict[str, Any] = {
            "solver": chosen.name,
            "solver_reason": chosen.reason,
            "num_steps": 0,
            "num_accepted_steps": 0,
            "num_rejected_steps": 0,
            **_estimates(Errors(0.0), system),
            "estimated_error_from": NO_STEP,
            "promised_error": promised_accuracy(first_rtol),
            "num_solutions": 0,
        }
        at_start = End(0.0, weights, start.evaluation, start.evaluation, system, measurement)
        if already is not None:
            result = met_at_start(already, rules, at_start)
        elif not np.isfinite(float(start.evaluation.values["train_loss"])):
            result = first_loss_not_finite(system, weights)
            stats |= _estimates(UNKNOWN, system)
        else:
            args = Arguments(
                system,
                measurement,
                (),
                start.stop_memories,
                start.margins,
                start.time_scale,
                jnp.asarray(float(horizon)),
                Probe.of(system, weights),
            )
            integration = Integration(
                weights=weights,
                args=args,
                start=start,
                choose=choose,
                rules=all_rules,
                t1=t1,
                save_times=save_times,
                weight_times=frozenset() if weight_times is None else frozenset(weight_times.tolist()),
                atol=atol,
                error_norm=get_error_norm(error_norm),
                monotone=flow.dynamics.never_ascends(system),
                max_steps=max_steps,
                bar=bar,
                steps_to_saves=steps_to_saves,
                checkpoints=None if checkpoints is None else map(checkpoints.solution, itertools.count(1)),
            )
            minimum = float(system.loss.minimum(system.problem.y_train))
            judged = judge(integration.solve, first_rtol, rtol is None, minimum)
            solution, result = judged.solution, judged.result
            times, rows, kept = solution.times, solution.rows, solution.kept
            last, final_weights, solves = solution.ended.last, solution.ended.weights, solution.solves
            settings |= {"solver": _as_setting(solution.phases[0].chosen), "rtol": solution.rtol}
            stats |= {**solution.solvers, **solution.counts}
            stats |= {
                **_estimates(judged.errors, system),
                "estimated_error_from": judged.known_from,
                "promised_error": judged.promised,
                "num_solutions": judged.count,
            }
            if bar is not None:
                # The bar may be past the end: a stop rule ends a run inside its last step, and another solution may go further.
                bar.update(solution.end, float(last.values["train_loss"]), solution.num_steps)
            if isinstance(solution.chosen.solver, AbstractLinearisedSolver):
                stats |= linearisation_stats(solution, system, measurement)
    values = stack_rows(rows)
    # The data set is not timed: the first one in a process imports xarray.
    stats |= {"wall_seconds": time.perf_counter() - began, "compile_seconds": clock.seconds()}
    data = make_dataset(
        values,
        variables,
        "time",
        times,
        {"long_name": "flow time", "units": "flow time", "reference": "docs/time_units.md"},
    )
    stats |= direction_stats(solves)
    trajectory = Trajectory(
        data,
        system.model(final_weights),
        model,
        problem,
        flow,
        with_solve_warning(result, stack_solves([last.diagnostics])),
        stats,
        settings,
        kept,
    )
    return checked(trajectory, throw)


def _as_setting(chosen: SolverChoice) -> str:
    """The argument of `simulate` that repeats these steps: "auto" if the solver may change, as a solver by name never does."""
    return chosen.name if chosen.change is None else "auto"


def _estimates(errors: Errors, system: System) -> dict[str, float]:
    estimates = {"estimated_error": errors.residual}
    has_test = system.problem.x_test is not None
    return {**estimates, "estimated_test_error": errors.test_outputs} if has_test else estimates


def system_and_weights(
    problem: AbstractProblem, model: Any, flow: AbstractFlow, in_steps: bool = False
) -> tuple[System, Any]:
    """The system of a run and its first weights.

    **Arguments:** `in_steps`: whether the run is one in discrete steps, which may be in single precision.

    **Raises:** `ConfigError` if `flow` is not a flow; `PrecisionError` for a flow in single precision; the errors of `System`.
    """
    require_instance(ConfigError, "flow", flow, AbstractFlow, "a flow such as gnflow.flows.GradientFlow()")
    if not in_steps and in_single_precision(model):
        raise PrecisionError(
            "a SinglePrecision model is evaluated in float32, but a flow in continuous time needs float64: its error control "
            "and small eigenvalues would be rounding noise. Give simulate the model in float64, model.model, or take steps of "
            "it by gnflow.iterate."
        )
    system = flow.system(problem, model)
    weights = system.weights(model)
    # Rates of decay come from the user, too: they may name weights that do not exist.
    if not is_own_class(type(flow.dynamics)) or flow.dynamics.decay(weights, system) is not None:
        _check_velocity(flow, system, weights)
    return system, weights


def _check_velocity(flow: AbstractFlow, system: System, weights: Any) -> None:
    """Check that the velocity of a user's flow has the structure of the weights. **Raises:** `ConfigError`."""
    name = type(flow.dynamics).__name__
    try:
        velocity = eqx.filter_eval_shape(flow.velocity, jnp.zeros(()), weights, system)
    except GnflowError:
        raise
    except Exception as error:
        said = on_one_line(error, 300)
        raise ConfigError(
            f"the velocity of {name} cannot be traced by JAX ({type(error).__name__}: {said}); expected a tree like the "
            "weights."
        ) from error
    expected = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), weights)
    found = jax.tree.map(lambda leaf: (getattr(leaf, "shape", ()), str(getattr(leaf, "dtype", "?"))), velocity)
    if not eqx.tree_equal(found, expected):
        raise ConfigError(
            f"the velocity of {name} has {shown(found)}; expected a tree like the weights, {shown(expected)}."
        )


def _save_times(saveat: Any, t1: float | None, time_scale: float) -> tuple[np.ndarray, float]:
    """The flow times to save at, and the flow time at which the integration ends at the latest."""
    longest = _FIRST_SAVE * time_scale * 10.0**_HORIZON_DECADES
    if saveat is None:
        # The number of times is fixed, so that runs of another length use the same compiled program. Times past the end cost
        # nothing.
        decades = np.arange(_HORIZON_DECADES * _SAVES_PER_DECADE + 1) / _SAVES_PER_DECADE
        horizon = longest if t1 is None else t1
        return np.minimum(_FIRST_SAVE * time_scale * 10.0**decades, horizon), horizon
    times = times_to_save(saveat, t1)
    # Without t1 the run goes on after the last save until a stop rule is met.
    return times, max(times[-1], longest) if t1 is None else t1


def rules_met(rules: tuple[AbstractStopRule, ...], margins: tuple[Array, ...]) -> list[AbstractStopRule]:
    """The rules that are met (their margins are 0 or negative), in their order."""
    return [rule for rule, margin in zip(rules, margins, strict=True) if float(margin) <= 0]
