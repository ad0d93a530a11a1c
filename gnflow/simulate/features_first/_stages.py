"""Stages, each a run of a flow and then a solve, as one trajectory."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._core import ConfigError, Result, ResultCode
from ...flows import AbstractFlow
from ...geometry import System
from ...metrics import AbstractMetric, Variable
from ...problems import AbstractProblem
from .._measure import Measurement, Values, numbers_as_arrays
from .._start import measure, remember
from .._trajectory import Trajectory, make_dataset
from ._choice import Decision

_SOLVED = Variable(
    "readout_solved", "1 where the output layer has just been solved, 0 along the flow", "1", "docs/features_first.md"
)
_COUNTS = ("num_steps", "num_accepted_steps", "num_rejected_steps", "num_velocity_evaluations")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One cycle.

    **Attributes:**

    - `run`: the run of the flow; None if the features are those of its start.
    - `solved`: the model with the output layer solved; None if the run failed.
    - `decision`: what was chosen.
    - `found`: what the solve found, by name.
    """

    run: Trajectory | None
    solved: Any
    decision: Decision
    found: dict[str, Any]


def joined(
    problem: AbstractProblem,
    model: Any,
    flow: AbstractFlow,
    system: System,
    metrics: tuple[AbstractMetric, ...],
    stages: list[Stage],
    settings: dict[str, Any],
    failure: Result | None,
) -> Trajectory:
    """The trajectory of all stages.

    **Arguments:**

    - `problem`, `model`, `flow`, `system`, `metrics`, `settings`: those of the call.
    - `failure`: the result of a stage that failed; None if none did.
    """
    measurement = numbers_as_arrays(Measurement.of(flow, metrics, system))
    variables = {**measurement.variables(system), _SOLVED.name: _SOLVED}
    times: list[float] = []
    rows: list[dict[str, Any]] = []
    start, kept, offset = model, {}, 0.0
    for stage in stages:
        values = _rows_of(stage, start, system, measurement, variables)
        spent = [0.0] if stage.run is None else stage.run.data.time.to_numpy().tolist()
        own = [offset + time for time in spent]
        if stage.solved is not None:
            kept[own[-1]] = jax.tree.map(np.asarray, system.weights(start if stage.run is None else stage.run.model))
            own.append(math.nextafter(own[-1], math.inf))
        first = 1 if times else 0  # the last state of the cycle before is the first of this one
        times, rows = [*times, *own[first:]], [*rows, *values[first:]]
        offset = times[-1]
        start = start if stage.solved is None else stage.solved
    if failure is not None and stages[-1].run is not None:
        start = stages[-1].run.model
    data = make_dataset(
        {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]},
        variables,
        "time",
        np.asarray(times),
        {"long_name": "flow time", "units": "flow time", "reference": "docs/time_units.md"},
    )
    kept.pop(0.0, None)  # the start is known anyway
    result = _result(stages, failure, times[-1])
    return Trajectory(data, start, model, problem, flow, result, _stats(stages), settings, kept)


def require_no_integrals(metrics: tuple[AbstractMetric, ...], weights: Any) -> None:
    """Check that no metric is an integral along a flow. **Raises:** `ConfigError`."""
    for metric in metrics:
        if jax.eval_shape(metric.integrands, weights):
            raise ConfigError(
                f"{type(metric).__name__} is an integral along a flow, which a solved output layer is not; leave it out."
            )


def _rows_of(
    stage: Stage, start: Any, system: System, measurement: Measurement, variables: dict[str, Variable]
) -> list[Values]:
    """What was measured along the run, and at the solved state."""
    weights = system.weights(start)
    memories, _, integrals = remember(weights, system, measurement, ())

    def at(state: Any, time: float) -> Values:
        found = measure(jnp.asarray(time), system.weights(state), integrals, system, measurement, memories)
        return jax.device_get(found.values)

    if stage.run is None:
        rows, end = [at(start, 0.0)], 0.0
    else:
        names = [name for name in stage.run.data.data_vars if name in variables]
        arrays = {str(name): stage.run.data[name].to_numpy() for name in names}
        count = stage.run.data.sizes["time"]
        rows = [{name: array[place] for name, array in arrays.items()} for place in range(count)]
        end = float(stage.run.data.time[-1])
    rows = [{**row, _SOLVED.name: np.float64(0.0)} for row in rows]
    if stage.solved is not None:
        rows.append({**at(stage.solved, end), _SOLVED.name: np.float64(1.0)})
    return rows


def _result(stages: list[Stage], failure: Result | None, time: float) -> Result:
    if failure is not None:
        return dataclasses.replace(failure, time=time)
    last = stages[-1].run
    why = "with the features of the start" if last is None else last.result.message
    code = ResultCode.TIME_REACHED if last is None else last.result.code
    return Result(code, f"the output layer was solved; before that {why}", time)


def _stats(stages: list[Stage]) -> dict[str, Any]:
    """Sums over all runs, and what the last stage chose and found."""
    runs = [run for stage in stages for run in (*stage.decision.probes, stage.run) if run is not None]
    probes = [run for stage in stages for run in stage.decision.probes]
    stats: dict[str, Any] = {"solver": runs[-1].stats["solver"] if runs else "none"}
    for name in _COUNTS:
        stats[name] = sum(int(run.stats.get(name, 0)) for run in runs)
        stats[f"{name}_to_choose"] = sum(int(run.stats.get(name, 0)) for run in probes)
    last = stages[-1]
    if last.run is not None:
        stats |= {name: value for name, value in last.run.stats.items() if name.startswith(("estimated", "promised"))}
        stats["feature_time"] = float(last.run.data.time[-1])
        losses = last.run.data.train_loss.to_numpy()
        stats["feature_relative_loss"] = float(losses[-1] / losses[0])
    return {**stats, "readout_cutoff": float(last.decision.cutoff), **last.decision.found, **last.found}
