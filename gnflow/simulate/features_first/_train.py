"""Features first, the output layer last."""

import dataclasses
import time
from typing import Any

import jax

from ..._core import (
    CompileClock,
    ConfigError,
    DataError,
    ModelError,
    Result,
    require_instance,
    require_number,
    require_positive_int,
    shown,
)
from ...flows import AbstractFlow, GaussNewtonFlow
from ...geometry import Readout, System, require_linear
from ...problems import AbstractProblem, Problem
from .._arguments import DEFAULT_ATOL, DEFAULT_MAX_STEPS, require_concrete
from .._measure import as_metrics
from .._simulate import simulate, system_and_weights
from .._trajectory import SimulationError, Trajectory, checked
from ..stop import AbstractStopRule, RelativeLoss, stop_rules
from ._choice import AbstractFeatureChoice, Decision, Probe
from ._hold_out import HoldOut
from ._stages import Stage, joined, require_no_integrals

KIND = "train_features_first"
_CUTOFF = 1e-10
_STOP = RelativeLoss(0.1)
_FLOW = GaussNewtonFlow()
_CHOOSE = HoldOut()


def train_features_first(
    problem: AbstractProblem,
    model: Any,
    flow: AbstractFlow = _FLOW,
    *,
    choose: AbstractFeatureChoice | AbstractStopRule = _CHOOSE,
    cycles: int = 1,
    readout: str = "output",
    cutoff: float = _CUTOFF,
    stop: Any = _STOP,
    solver: Any = "auto",
    rtol: float | None = None,
    atol: float = DEFAULT_ATOL,
    error_norm: str = "function",
    metrics: tuple[Any, ...] = (),
    max_steps: int = DEFAULT_MAX_STEPS,
    progress: bool = False,
    throw: bool = True,
) -> Trajectory:
    """Run a flow until features are learned, which is early, then solve the output layer exactly.

    From a small start a Gauss-Newton flow learns features long before its loss is small: the output layer lags behind
    (hidden learning, [A] Arbel et al. 2023, arXiv 2302.02904v3). There the minimum-norm least-squares solution of the output
    layer (`gnflow.geometry.Readout`) generalises better than the flow's own end. docs/features_first.md compares it with
    gradient flow and says where it fails.

    **Arguments:**

    - `problem`: samples with the squared loss; a classification as a regression on one-hot rows.
    - `model`: a model whose outputs are linear in its output layer. Take a small start, such as `init_scale=0.01` of a
      mean-field network.
    - `flow`: any flow that moves the output layer and others.
    - `choose`: when the first stage ends: `HoldOut`, `FeatureRank`, `AlignmentPeak`, `LeaveOneOut`, or a stop rule, such as
      `gnflow.RelativeLoss(0.9)`. None of gnflow's but `TestLoss` looks at the test data.
    - `cycles`: how often the two stages are run; from the second on the flow begins at the solved state.
    - `readout`: the name of the output layer, as in `gnflow.flows.Frozen`.
    - `cutoff`: the share of the largest eigenvalue of the features' Gram matrix up to which eigenvalues count as zero, at
      least 0 and below 1. `HoldOut` chooses its own.
    - `stop`: one or several stop rules, where the first stage ends at the latest. The rules that compare states run to there.
    - `solver`, `rtol`, `atol`, `error_norm`, `metrics`, `max_steps`, `progress`, `throw`: as for `gnflow.simulate`, for every
      run. Metrics that are integrals along a flow are refused. What metrics remember of a start is that of their cycle.

    **Returns:** a `Trajectory` of all stages, over flow time. Solving takes no flow time: its state has the next number after
    the end of the stage for its time. `readout_solved` in `data` is 1 there, and 0 along the flow. `stats` says what was chosen
    and counts all steps and velocities, those of the runs that were made to choose too. Theorems do not apply to it.

    **Raises:** the errors of `gnflow.simulate`; `DataError` unless the problem has samples and the squared loss; `ModelError`
    unless the outputs are linear in the output layer and something else moves; `ConfigError` for another rule or number.
    """
    began, clock = time.perf_counter(), CompileClock()
    require_concrete(KIND, problem, model, flow, rtol, atol, metrics)
    check_features_first(choose=choose, cycles=cycles, readout=readout, cutoff=cutoff, stop=stop)
    system, weights = system_and_weights(problem, model, flow)
    _require_regression(system)
    if all(jax.tree.leaves(require_linear(system, weights, readout))):
        raise ModelError(
            f"all weights of {type(model).__name__} that move are called {readout!r}; nothing is left to learn features with."
        )
    metrics = as_metrics(metrics)
    require_no_integrals(metrics, weights)
    options = {
        "solver": solver,
        "rtol": rtol,
        "atol": atol,
        "error_norm": error_norm,
        "max_steps": max_steps,
        "progress": progress,
    }
    rules = stop_rules(stop)
    stages: list[Stage] = []
    result: Result | None = None
    current = model
    for _ in range(int(cycles)):
        start = current

        def probe(other: AbstractProblem, measured: tuple[Any, ...], start: Any = start) -> Trajectory:
            return simulate(other, start, flow, stop=rules, metrics=measured, **options)

        try:
            decision = _decide(choose, system.problem, readout, cutoff, probe)
        except SimulationError as error:
            failed = error.trajectory
            result = dataclasses.replace(failed.result, message=f"while choosing: {failed.result.message}")
            stages.append(Stage(None, None, Decision(probes=(failed,)), {}))
            break
        ends = rules if decision.stop is None else (decision.stop, *rules)
        if decision.t1 == 0:  # a run of no length: the features are those of the start
            run = None
        else:
            stage_stop = None if decision.t1 is not None else ends
            run = simulate(
                problem, start, flow, t1=decision.t1, stop=stage_stop, metrics=metrics, throw=False, **options
            )
        if run is not None and run.result.failed:
            result = run.result
            stages.append(Stage(run, None, decision, {}))
            break
        state = system.weights(start if run is None else run.model)
        solution = Readout.of(system, state, system.named(state, readout))
        solved = system.model(solution.solve(decision.cutoff))
        found = {"readout_rank": int(solution.rank(decision.cutoff))}
        stages.append(Stage(run, solved, decision, found))
        current = solved
    settings = {
        "kind": KIND,
        "choose": choose,
        "cycles": int(cycles),
        "readout": readout,
        "cutoff": float(cutoff),
        "stop": rules,
        "metrics": metrics,
        **{name: option for name, option in options.items() if name != "progress"},
    }
    trajectory = joined(problem, model, flow, system, metrics, stages, settings, result)
    trajectory.stats.update(wall_seconds=time.perf_counter() - began, compile_seconds=clock.seconds())
    return checked(trajectory, throw)


def check_features_first(
    *,
    choose: Any = _CHOOSE,
    cycles: Any = 1,
    readout: Any = "output",
    cutoff: Any = _CUTOFF,
    stop: Any = _STOP,
    **others: Any,
) -> None:
    """Check the arguments of `train_features_first` that `simulate` does not have. **Raises:** `ConfigError`."""
    example = "gnflow.HoldOut(), or a stop rule such as gnflow.RelativeLoss(0.9)"
    if not isinstance(choose, AbstractStopRule):
        require_instance(ConfigError, "choose", choose, AbstractFeatureChoice, example)
    require_positive_int(ConfigError, cycles=cycles)
    if not isinstance(readout, str):
        raise ConfigError(f"readout = {shown(readout)}; expected the name of the output layer, such as 'output'.")
    require_number(ConfigError, "cutoff", cutoff, least=0.0, below=1.0)
    if not stop_rules(stop):
        raise ConfigError(
            "stop is empty, so that the first stage may have no end; give a rule, such as RelativeLoss(0.1)."
        )


def _require_regression(system: System) -> None:
    """Check that the output layer has an exact solution. **Raises:** `DataError`."""
    if not system.problem.has_samples:
        raise DataError(
            f"train_features_first needs samples with inputs and targets, and a {type(system.problem).__name__} has none."
        )
    if not system.loss.is_squared_distance:
        raise DataError(
            f"train_features_first solves the output layer by least squares, but the loss is {type(system.loss).__name__}; "
            "state a classification as a regression on one-hot rows, such as gnflow.problems.digits(task='regression')."
        )


def _decide(
    choose: AbstractFeatureChoice | AbstractStopRule,
    problem: AbstractProblem,
    readout: str,
    cutoff: float,
    probe: Probe,
) -> Decision:
    """The decision for one stage. Rules that look at states get the training data alone."""
    if isinstance(choose, AbstractStopRule):
        return Decision(stop=choose, cutoff=float(cutoff))
    training = Problem(problem.x_train, problem.y_train, loss=problem.loss, name=problem.name)
    return choose.decide(training, readout, float(cutoff), probe)
