"""The discrete methods: explicit Euler steps of a flow, which are gradient descent and Gauss-Newton."""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core import Result, ResultCode, tree_add_scaled
from ..flows import AbstractFlow
from ..geometry import System
from ..metrics import DirectionDiagnostics
from ..problems import Problem
from ._arguments import check_iterate
from ._integrate import Start, start_run
from ._measure import Evaluation, Measurement, numbers_as_arrays
from ._outcome import direction_failure, with_solve_warning
from ._progress import ProgressBar, progress_bar, report
from ._simulate import join, rule_met
from ._stop import AbstractStopRule, stop_rules
from ._trajectory import SimulationError, Trajectory, make_dataset, stack_rows


def iterate(
    problem: Problem,
    model: Any,
    flow: AbstractFlow,
    *,
    step_size: float,
    num_steps: int,
    save_every: int = 1,
    stop: Any = None,
    metrics: tuple[Any, ...] = (),
    progress: bool = False,
    throw: bool = True,
) -> Trajectory:
    """Run w <- w + step_size * flow.velocity(w): gradient descent, Gauss-Newton or another flow's discrete method.

    **Arguments:**

    - `problem`, `model`, `flow`: as for `simulate`. For plain gradient descent, whose step is step_size * grad L, give the
      flow `mobility=1.0`.
    - `step_size`: in units of flow time; a schedule of damping sees the time step * step_size.
    - `num_steps`: how many. `save_every`: save each so many steps; step 0 and the last are always saved.
    - `stop`: stop rules, looked at after the saved steps. `metrics`, `progress`, `throw`: as for `simulate`.

    **Returns:** a `Trajectory`; `trajectory.data` has the dimension "step" (0 is the state before any step) and the
    coordinate `flow_time` = step * step_size. A run that diverges ends with the code `non_finite`.

    **Raises:** as `simulate`.
    """
    began = time.perf_counter()
    check_iterate(step_size=step_size, num_steps=num_steps, save_every=save_every, stop=stop)
    rules = stop_rules(stop)
    system, weights = join(problem, model, flow)
    recorded = tuple(metrics)
    if not any(isinstance(metric, DirectionDiagnostics) for metric in recorded):
        recorded = (*recorded, DirectionDiagnostics())
    measurement = numbers_as_arrays(Measurement(flow, recorded))
    variables = measurement.variables(system)
    array_rules = numbers_as_arrays(rules)
    start: Start = start_run(weights, system, measurement, array_rules)
    step_length = jnp.asarray(float(step_size))
    state = _State(weights, start.integrals, start.evaluation)
    steps, saved = [0], [start.evaluation]
    result = _early_end(0, start.margins, rules, start.evaluation, start=True)
    bar = ProgressBar(float(start.evaluation.values["train_loss"]), rules, "step") if progress else None
    with progress_bar(bar) as number:
        while result is None and steps[-1] < num_steps:
            stride = min(save_every, num_steps - steps[-1])
            state, margins = _advance(
                state, jnp.asarray(steps[-1]), jnp.asarray(stride), step_length, system, measurement, start, array_rules
            )
            steps.append(steps[-1] + stride)
            saved.append(state.evaluation)
            result = _early_end(steps[-1], margins, rules, state.evaluation, start=False)
            if number is not None:
                report(number, steps[-1], state.evaluation.values["train_loss"], accepted=True)
    if result is None:
        message = f"{num_steps} steps were taken, training loss {float(state.evaluation.values['train_loss']):.3e}"
        result = Result(ResultCode.NUM_STEPS_REACHED, message, float(num_steps))
    data = make_dataset(
        stack_rows([evaluation.values for evaluation in saved]),
        variables,
        "step",
        np.asarray(steps),
        {"long_name": "step", "units": "1", "reference": "docs/time_units.md"},
    )
    flow_time = ("step", np.asarray(steps) * float(step_size), {"long_name": "flow time", "units": "flow time"})
    trajectory = Trajectory(
        data.assign_coords(flow_time=flow_time),
        system.model(state.weights),
        model,
        problem,
        flow,
        with_solve_warning(result, saved),
        {"solver": "euler", "num_steps": steps[-1], "wall_seconds": time.perf_counter() - began},
        {
            "kind": "iterate",
            "step_size": float(step_size),
            "num_steps": num_steps,
            "save_every": save_every,
            "stop": rules,
            "metrics": tuple(metrics),
        },
    )
    if throw and result.failed:
        raise SimulationError(trajectory)
    return trajectory


class _State(eqx.Module):
    """Weights, integrals, and what was measured there: the velocity in it is the next step's."""

    weights: PyTree
    integrals: dict[str, Array]
    evaluation: Evaluation


@eqx.filter_jit
def _advance(
    state: _State,
    step: Int[Array, ""],
    stride: Int[Array, ""],
    step_size: Float[Array, ""],
    system: System,
    measurement: Measurement,
    start: Start,
    rules: tuple[AbstractStopRule, ...],
) -> tuple[_State, tuple[Array, ...]]:
    """`stride` Euler steps from `state` at `step`, and the margins of the stop rules after them."""

    def moved(weights: PyTree, integrals: dict[str, Array], velocity: PyTree) -> tuple[PyTree, dict[str, Array]]:
        rates = measurement.integrands(velocity, system)
        return tree_add_scaled(weights, step_size, velocity), tree_add_scaled(integrals, step_size, rates)

    def body(index: Array, carry: tuple[PyTree, dict[str, Array]]) -> tuple[PyTree, dict[str, Array]]:
        velocity = measurement.flow.velocity((step + index) * step_size, carry[0], system)
        return moved(*carry, velocity)

    first = moved(state.weights, state.integrals, state.evaluation.velocity)
    weights, integrals = jax.lax.fori_loop(1, stride, body, first)
    now = (step + stride) * step_size
    evaluation = measurement.evaluate(now, weights, integrals, system, start.memories)
    margins = tuple(
        rule.margin(weights, system, memory) for rule, memory in zip(rules, start.stop_memories, strict=True)
    )
    return _State(weights, integrals, evaluation), margins


def _early_end(
    step: int, margins: tuple[Array, ...], rules: tuple[AbstractStopRule, ...], evaluation: Evaluation, start: bool
) -> Result | None:
    """Why the run is over at this step, or None."""
    where = f"at step {step}"
    diagnostics = evaluation.diagnostics
    if diagnostics is not None and not np.isfinite(float(diagnostics.relative_residual)):
        return Result(ResultCode.DIRECTION_FAILED, direction_failure(where), float(step))
    if not np.isfinite(float(evaluation.values["train_loss"])):
        message = (
            f"the training loss is not finite {where}: the step size is beyond the method's stability (gradient descent needs "
            "step_size * mobility < 2 / (largest eigenvalue of A * smoothness of the loss)); take a smaller one"
        )
        return Result(ResultCode.NON_FINITE, message, float(step))
    met = rule_met(rules, margins)
    if met is not None:
        code = ResultCode.STOP_RULE_MET_AT_START if start else ResultCode.STOP_RULE_MET
        return Result(code, f"{met.describe()} {where}", float(step))
    return None
