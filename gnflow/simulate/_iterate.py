"""The discrete methods: steps along a flow's velocity. They are gradient descent, Gauss-Newton and their mini-batch forms."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from .._core import CompileClock, ConfigError, Result, ResultCode, as_key, require_bool
from ..flows import AbstractFlow
from ..geometry import SolveDiagnostics
from ..metrics import DirectionDiagnostics
from ..models import SinglePrecision
from ..models._single_precision import has_float32_weights
from ..optimisers import AbstractOptimiser, as_optimiser, optimiser_kinds
from ..problems import AbstractAugmentation, AbstractProblem
from ._arguments import (
    batches_per_epoch,
    check_iterate,
    check_with_samples,
    orders_of_epochs,
    require_concrete,
    step_factors,
    steps_to_keep,
)
from ._full_batch import FullBatch
from ._measure import Measurement, Values, as_metrics, numbers_as_arrays
from ._minibatch import Batches, MiniBatch, batch_dataset
from ._outcome import direction_stats, first_loss_not_finite, with_solve_warning
from ._precision import precision_stats
from ._progress import progress_bar
from ._simulate import rules_met, system_and_weights
from ._steps import AbstractStep, AbstractStepLoop, EulerStep, OptimiserStep, SavedStep
from ._trajectory import Trajectory, checked, make_dataset, stack_rows
from .stop import AbstractStopRule, stop_rules


def iterate(
    problem: AbstractProblem,
    model: Any,
    flow: AbstractFlow,
    *,
    step_size: float | None = None,
    optimiser: AbstractOptimiser | optax.GradientTransformation | None = None,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    batch_size: int | None = None,
    keep_last: bool = False,
    batch_order: Any = None,
    augment: AbstractAugmentation | None = None,
    key: Any = None,
    schedule: Callable[[Any], Any] | None = None,
    save_every: int | None = None,
    saveat_weights: Any = None,
    stop: Any = None,
    metrics: tuple[Any, ...] = (),
    progress: bool = False,
    throw: bool = True,
) -> Trajectory:
    """Run w <- w + step_size * flow.velocity(w): gradient descent, Gauss-Newton or another flow's discrete method.

    With `optimiser` the steps are those of the optimiser for the gradient -flow.velocity(w). With `batch_size` each step uses
    the velocity of the problem with the samples of one batch, whose loss is the mean over the batch (docs/time_units.md).

    **Arguments:**

    - `problem`, `model`, `flow`: as for `simulate`. For plain gradient descent with the step step_size * grad L, and for Adam
      and SGD, give the flow `mobility=1.0`. A model whose weights are float32 takes its steps as
      `gnflow.models.SinglePrecision(model)`, which is then the model of the trajectory.
    - `step_size`: the length of a step in flow time. A schedule of damping sees the time step * step_size.
    - `optimiser`: in the place of `step_size`, one of `gnflow.optimisers` or an Optax transformation. The unit of time is then
      one step: a schedule of damping sees the number of steps, and integral metrics such as the path length sum over steps.
    - `num_steps`: the number of steps.
    - `num_epochs`: in the place of `num_steps`, the number of passes through the training samples. An epoch has floor(N/B)
      steps, ceil(N/B) with `keep_last`, or one without `batch_size`.
    - `batch_size`: B, the number of samples in a batch. Each epoch is a new shuffle, cut into floor(N/B) batches of B different
      samples. The N - floor(N/B) B samples left over are not used in that epoch, unless `keep_last` is given.
    - `keep_last`: whether the samples left over are a shorter last batch of the epoch. Its loss is the mean over its own
      samples, so that they weigh more than others.
    - `batch_order`: in the place of `key`, the order of the samples: integers (epochs, N), a row for each epoch, which are used
      again from the first one on where there are more epochs; or one row (N,).
    - `augment`: a random change of each batch's inputs, such as `gnflow.problems.CropAndFlip`. What is measured at saved steps
      is measured on the samples as they are, the losses of batches on what was changed.
    - `key`: draws the batches and what `augment` does, a JAX key or an integer.
    - `schedule`: a function of the number 0, 1, ... of a step that returns the factor by which the step is scaled, at least 0:
      `gnflow.optimisers.CosineDecay`, `ExponentialDecay`, a schedule of Optax, or a function of yours in JAX. With an optimiser
      it multiplies what the optimiser makes of the gradient, which is its learning rate in effect.
    - `save_every`: the number of steps from one save to the next. Step 0 and the last step are always saved. None saves every
      step, and with `batch_size` every epoch, because what is saved is measured on all samples and may cost much more than a
      step.
    - `saveat_weights`: steps at which to keep the weights, for `Trajectory.model_at`, ascending and up to the last one. They
      are saved steps too. The weights at the start and at the end are always kept.
    - `stop`: stop rules, which are looked at after the saved steps.
    - `metrics`, `progress`, `throw`: as for `simulate`.

    **Returns:** a `Trajectory`. `trajectory.data` has the dimension "step" (0 is the state before any step) and the
    coordinate `flow_time`, which is step * step_size (with a schedule the sum of the steps), or the step with an optimiser. A
    run that diverges ends with the code `non_finite`.

    With `batch_size` it also has the dimension "batch", one batch for each step, counted from 1, with the coordinate `epoch`:

    - `batch_loss`, `batch_loss_after`: the loss of the step's batch before and after the step.
    - `next_batch_loss`, `next_batch_loss_after`: the same for the next batch. It rises if a step fits its own batch at the
      expense of the others.
    - `batch_damping`, `batch_rank`, `batch_relative_residual` and so on: diagnostics of the direction solve, if there is one.

    These losses cost three forward passes of a batch per step. The velocity on all samples is computed only if a metric, such
    as `DirectionDiagnostics`, asks for it.

    **Raises:** the errors of `simulate`; `ConfigError` also unless exactly one of `step_size` and `optimiser`, and exactly one
    of `num_steps` and `num_epochs`, is given, if `batch_size` is larger than N or comes without `key` or `batch_order`, if
    an order is no order of the samples, if a schedule gives no factors, or if `saveat_weights` goes beyond the last step.
    """
    began, clock = time.perf_counter(), CompileClock()
    require_concrete("iterate", problem, model, flow, step_size, optimiser, key, stop, metrics)
    check_iterate(
        step_size=step_size,
        optimiser=optimiser,
        num_steps=num_steps,
        num_epochs=num_epochs,
        batch_size=batch_size,
        keep_last=keep_last,
        batch_order=batch_order,
        augment=augment,
        key=key,
        schedule=schedule,
        save_every=save_every,
        stop=stop,
        saveat_weights=saveat_weights,
    )
    num_steps, num_epochs, batch_size, save_every = (
        None if size is None else int(size) for size in (num_steps, num_epochs, batch_size, save_every)
    )
    keep_last, progress, throw = require_bool(ConfigError, keep_last=keep_last, progress=progress, throw=throw)
    rules = stop_rules(stop)
    if has_float32_weights(model):
        model = SinglePrecision(model)
    system, weights = system_and_weights(problem, model, flow, in_steps=True)
    num_train = system.problem.num_train
    check_with_samples(system.problem, batch_size, num_epochs, saveat_weights, keep_last, batch_order, augment)
    batches = None
    if batch_size is not None:
        orders = None if batch_order is None else jnp.asarray(orders_of_epochs(batch_order, num_train))
        batches = Batches(as_key(0 if key is None else key), num_train, batch_size, keep_last, orders, augment)
    per_epoch = batches_per_epoch(num_train, batch_size, keep_last)
    last_step = num_steps if num_epochs is None else num_epochs * per_epoch
    assert last_step is not None
    factors = None if schedule is None else step_factors(schedule, last_step)
    save_every = min(per_epoch if save_every is None else save_every, last_step)
    wanted = () if saveat_weights is None else steps_to_keep(saveat_weights, last_step)
    recorded = metrics = as_metrics(metrics)
    if batches is None and not any(isinstance(metric, DirectionDiagnostics) for metric in recorded):
        recorded = (*recorded, DirectionDiagnostics())
    measurement = numbers_as_arrays(Measurement.of(flow, recorded, system))
    variables = measurement.variables(system)
    scales = None if factors is None else jnp.asarray(factors)
    if optimiser is None:
        method: AbstractStep = EulerStep(step_size=jnp.asarray(float(cast(float, step_size))), factors=scales)
    else:
        method = OptimiserStep(optimiser=numbers_as_arrays(as_optimiser(optimiser)), factors=scales)
    parts = system, measurement, method, numbers_as_arrays(rules)
    loop: AbstractStepLoop = FullBatch(*parts) if batches is None else MiniBatch(*parts, batches, save_every)
    record = _take_steps(loop, weights, rules, last_step, save_every, wanted, progress)
    values = stack_rows(record.rows)
    # The data set is not timed: the first one in a process imports xarray.
    wall_seconds, compile_seconds = time.perf_counter() - began, clock.seconds()
    data = make_dataset(
        values,
        variables,
        "step",
        np.asarray(record.steps),
        {"long_name": "step", "units": "1", "reference": "docs/time_units.md"},
    )
    length, unit = (float(step_size), "flow time") if step_size is not None else (1.0, "steps")
    times = np.asarray(record.steps) * length
    if step_size is not None and factors is not None:
        times = length * np.concatenate([np.zeros(1), np.cumsum(factors)])[np.asarray(record.steps)]
    data = data.assign_coords(flow_time=("step", times, {"long_name": unit, "units": unit}))
    stats: dict[str, Any] = {
        "solver": "euler" if optimiser is None else _kind(as_optimiser(optimiser)),
        "num_steps": record.steps[-1],
    }
    if batches is not None:
        stats["batches_per_epoch"] = batches.per_epoch
        if record.steps[-1] > 0:
            recorded_of_batches = batch_dataset(record.losses, record.solves, batches, system)
            data = data.assign(recorded_of_batches.data_vars).assign_coords(recorded_of_batches.coords)
    stats |= direction_stats(record.solves) | precision_stats(system, record.last.state.weights)
    trajectory = Trajectory(
        data,
        system.model(record.last.state.weights),
        model,
        problem,
        flow,
        with_solve_warning(record.result, record.solves, "saved states" if batches is None else "batches"),
        {**stats, "wall_seconds": wall_seconds, "compile_seconds": compile_seconds},
        {
            "kind": "iterate",
            "step_size": None if step_size is None else float(step_size),
            "optimiser": None if optimiser is None else as_optimiser(optimiser),
            "num_steps": last_step,
            "batch_size": batch_size,
            "keep_last": keep_last,
            "batch_order": None if batches is None or batches.orders is None else np.asarray(batches.orders),
            "augment": augment,
            "key": None if batches is None or key is None else np.asarray(jax.random.key_data(batches.key)),
            "schedule": factors,
            "save_every": save_every,
            "saveat_weights": wanted or None,
            "stop": rules,
            "metrics": metrics,
        },
        record.kept,
    )
    return checked(trajectory, throw)


@dataclasses.dataclass(frozen=True)
class _Record:
    """The record of a run in steps.

    **Attributes:**

    - `steps`, `rows`: the saved steps, and what was measured there.
    - `losses`: the losses of the batches, by name, (batches,).
    - `solves`: the diagnostics of all known direction solves, with a first axis added to each field.
    - `last`: the last state.
    - `kept`: the weights at the steps where they are kept, before the last one.
    - `result`: how the run ended.
    """

    steps: list[int]
    rows: list[Values]
    losses: dict[str, np.ndarray]
    solves: SolveDiagnostics | None
    last: SavedStep
    kept: dict[float | int, PyTree]
    result: Result


def _take_steps(
    loop: AbstractStepLoop,
    weights: PyTree,
    rules: tuple[AbstractStopRule, ...],
    num_steps: int,
    save_every: int,
    wanted: tuple[int, ...],
    progress: bool,
) -> _Record:
    """Take steps until something ends the run. Weights are kept at the steps `wanted`, which are saved steps too."""
    interrupted = False
    kept: dict[float | int, PyTree] = {}
    with progress_bar(progress, rules, "step") as bar:
        begun = loop.start(weights)
        if begun.failure is not None and begun.failure.code == ResultCode.NON_FINITE:
            begun = dataclasses.replace(begun, failure=first_loss_not_finite(loop.system, weights))
        states = [begun]
        result = _early_end(states[0], rules)
        if bar is not None:
            bar.begin(float(states[0].values["train_loss"]))
        try:
            while result is None and states[-1].step < num_steps:
                now = states[-1].step
                coming = (step for step in (*wanted, num_steps) if step > now)
                after = loop.advance(states[-1], min(save_every - now % save_every, next(coming) - now))
                if after.step in wanted:
                    kept[after.step] = jax.device_get(after.state.weights)
                states.append(after)
                # What the next step needs is as large as the weights, so it is held for the last state alone.
                states[-2] = dataclasses.replace(states[-2], state=None)
                result = _early_end(states[-1], rules)
                if bar is not None:
                    bar.update(float(states[-1].step), float(states[-1].values["train_loss"]), states[-1].step)
        except KeyboardInterrupt:
            interrupted = True
    last = states[-1]
    loss = f"training loss {float(last.values['train_loss']):.3e}"
    result = _early_end(last, rules)
    if result is None and last.step < num_steps and interrupted:
        message = f"the run was interrupted at step {last.step}, {loss}"
        result = Result(ResultCode.INTERRUPTED, message, float(last.step))
    elif result is None:
        result = Result(ResultCode.NUM_STEPS_REACHED, f"{num_steps} steps were taken, {loss}", float(num_steps))
    losses, solves = (
        jax.tree.map(_end_to_end, *parts) for parts in zip(*((at.losses, at.solves) for at in states), strict=True)
    )
    kept = {step: weights for step, weights in kept.items() if step < last.step}
    return _Record([at.step for at in states], [at.values for at in states], losses, solves, last, kept, result)


def _end_to_end(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


def _early_end(saved: SavedStep, rules: tuple[AbstractStopRule, ...]) -> Result | None:
    """Why the run is over, or None."""
    if saved.failure is not None:
        return saved.failure
    met = next(iter(rules_met(rules, saved.margins)), None)
    if met is None:
        return None
    at_start = saved.step == 0 and met.code == ResultCode.STOP_RULE_MET
    code = ResultCode.STOP_RULE_MET_AT_START if at_start else met.code
    return Result(code, f"{met.describe()} at step {saved.step}", float(saved.step))


def _kind(optimiser: AbstractOptimiser) -> str:
    """The optimiser's name in configurations, or the name of its class if configurations do not know it."""
    kinds = {known: kind for kind, known in optimiser_kinds.items()}
    return kinds.get(type(optimiser), type(optimiser).__name__.lower())
