"""Defaults and checks of the arguments of `simulate` and `iterate`, so that a configuration can be refused before any run."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import (
    ConfigError,
    as_key,
    is_key,
    is_traced,
    require_bool,
    require_instance,
    require_integer,
    require_number,
    require_positive_int,
    shown,
)
from ..optimisers import as_optimiser
from ..problems import AbstractAugmentation, AbstractProblem
from ..solvers import check_solver
from ._controller import get_error_norm
from .stop import RelativeLoss, stop_rules

DEFAULT_STOP = RelativeLoss(1e-8)
_LEAST_RTOL = 1e-14
_SHORTEST = 1e-300  # flow time: smaller numbers lose digits
_ROUNDING = 1e-12  # relative rounding of times that are sums of many terms
DEFAULT_ATOL = 1e-13
DEFAULT_MAX_STEPS = 16384


def require_concrete(function: str, *parts: Any) -> None:
    """Check that a run is not started inside a program that JAX traces.

    **Arguments:**

    - `function`: "simulate" or "iterate".
    - `parts`: its arguments.

    **Raises:** `ConfigError`.
    """
    # Inside jax.jit every new array is traced; under vmap and grad only what depends on their arguments.
    made = jnp.zeros(())
    if any(is_traced(leaf) for leaf in (made, *jax.tree.leaves(parts))):
        raise ConfigError(
            f"gnflow.{function} was called inside jax.jit, jax.vmap, jax.grad or the like, which hand it no numbers: a run "
            "decides by numbers when it is over, and compiles its own steps. Call it outside; for many runs take gnflow.sweep, "
            "for derivatives through a flow, or solutions side by side, flow.velocity or gnflow.solvers.LinearisedTerm in "
            "diffrax.diffeqsolve (docs/extending.md)."
        )


def check_simulate(
    *,
    t1: float | None = None,
    stop: Any = DEFAULT_STOP,
    saveat: Any = None,
    solver: Any = "auto",
    rtol: float | None = None,
    atol: float = DEFAULT_ATOL,
    error_norm: str = "function",
    max_steps: int = DEFAULT_MAX_STEPS,
    saveat_weights: Any = None,
) -> None:
    """Check the arguments of a `simulate`. **Raises:** `ConfigError`, which names the value and what was expected."""
    if t1 is None and not stop_rules(stop):
        raise ConfigError("neither t1 nor a stop rule is given, so the run would have no end; give one of them.")
    if t1 is not None:
        require_number(ConfigError, "t1", t1, least=_SHORTEST, remedy="It is a flow time; the run begins at 0.")
    if rtol is not None:
        remedy = f"Below {_LEAST_RTOL:g} errors are rounding; None takes the default."
        require_number(ConfigError, "rtol", rtol, above=_LEAST_RTOL, below=1.0, remedy=remedy)
    require_number(ConfigError, "atol", atol, above=0.0, remedy="Below it errors are rounding: a usual value is 1e-13.")
    require_positive_int(ConfigError, max_steps=max_steps)
    check_solver(solver)
    get_error_norm(error_norm)
    for name, times in {"saveat": saveat, "saveat_weights": saveat_weights}.items():
        if times is not None:
            times_to_save(times, t1, name)


def check_iterate(
    *,
    step_size: float | None = None,
    optimiser: Any = None,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    batch_size: int | None = None,
    keep_last: bool = False,
    batch_order: Any = None,
    augment: Any = None,
    key: Any = None,
    schedule: Any = None,
    save_every: int | None = None,
    stop: Any = None,
    saveat_weights: Any = None,
) -> None:
    """Check the arguments of an `iterate`. **Raises:** `ConfigError`, which names the value and what was expected."""
    _require_one(step_size=step_size, optimiser=optimiser)
    _require_one(num_steps=num_steps, num_epochs=num_epochs)
    if optimiser is not None:
        as_optimiser(optimiser)
    else:
        require_number(ConfigError, "step_size", step_size, above=0.0)
    sizes = {"num_steps": num_steps, "num_epochs": num_epochs, "batch_size": batch_size, "save_every": save_every}
    require_positive_int(ConfigError, **{name: size for name, size in sizes.items() if size is not None})
    require_bool(ConfigError, keep_last=keep_last)
    if batch_size is not None:
        _require_randomness(key, batch_order, augment)
    else:
        alone = {"key": key, "batch_order": batch_order, "keep_last": keep_last or None, "augment": augment}
        for name, value in alone.items():
            if value is not None:
                raise ConfigError(
                    f"{name} = {shown(value)} without batch_size; steps with all samples draw nothing: give both or neither."
                )
    if schedule is not None and not callable(schedule):
        raise ConfigError(
            f"schedule = {shown(schedule)}; expected a function of the step's number, such as "
            "gnflow.optimisers.CosineDecay(1000) or optax.cosine_decay_schedule(1.0, 1000)."
        )
    stop_rules(stop)
    if saveat_weights is not None:
        steps_to_keep(saveat_weights, num_steps)


def check_with_samples(
    problem: AbstractProblem,
    batch_size: int | None = None,
    num_epochs: int | None = None,
    saveat_weights: Any = None,
    keep_last: bool = False,
    batch_order: Any = None,
    augment: Any = None,
    **others: Any,
) -> None:
    """Check those arguments of an `iterate` that depend on the number of training samples.

    **Arguments:**

    - `problem`: the problem of a system.
    - `batch_size`, `num_epochs`, `saveat_weights`, `keep_last`, `batch_order`, `augment`: as for `iterate`.
    - `others`: the further arguments, which do not depend on it.

    **Raises:** `ConfigError` if a batch is larger than the training set or there are no samples to draw, or weights are to be
    kept after the last epoch.
    """
    num_train = problem.num_train
    if batch_size is not None and not problem.has_samples:
        raise ConfigError(
            f"batch_size = {batch_size}, but a {type(problem).__name__} has no samples to draw from: its points are a "
            "quadrature; leave batch_size out."
        )
    if batch_size is not None and batch_size > num_train:
        raise ConfigError(
            f"batch_size = {batch_size}, but there are {num_train} training samples; take at most so many, or leave "
            "batch_size out to take all of them."
        )
    if batch_order is not None:
        orders_of_epochs(batch_order, num_train)
    if augment is not None:
        x = problem.x_train
        changed = jax.eval_shape(augment, jax.random.key(0), jax.ShapeDtypeStruct(x.shape, x.dtype))
        if (changed.shape, changed.dtype) != (x.shape, x.dtype):
            raise ConfigError(
                f"augment makes inputs {changed.shape} of {changed.dtype} of inputs {x.shape} of {x.dtype}; it must keep them."
            )
    if num_epochs is not None and saveat_weights is not None:
        steps_to_keep(saveat_weights, int(num_epochs) * batches_per_epoch(num_train, batch_size, keep_last))


def batches_per_epoch(num_train: int, batch_size: int | None, keep_last: bool = False) -> int:
    """The number of steps in an epoch: floor(N/B), ceil(N/B) with a shorter last batch, or one without batches."""
    if batch_size is None:
        return 1
    return -(-num_train // int(batch_size)) if keep_last else num_train // int(batch_size)


def orders_of_epochs(batch_order: Any, num_train: int) -> np.ndarray:
    """The orders of the samples (epochs, N) that the user gives.

    **Raises:** `ConfigError` unless every row holds each of 0, ..., N - 1 once.
    """
    try:
        orders = np.atleast_2d(np.asarray(batch_order))
    except ValueError:  # rows of different lengths
        orders = np.zeros((0, 0))
    is_array = orders.dtype.kind in "iu" and orders.ndim == 2 and orders.shape[0] > 0 and orders.shape[1] == num_train
    if not is_array or not np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(num_train), (len(orders), 1))):
        raise ConfigError(
            f"batch_order = {shown(batch_order)}; expected the order of the {num_train} training samples in each epoch: rows "
            f"that hold each of 0, ..., {num_train - 1} once, (epochs, {num_train}) or ({num_train},)."
        )
    return orders.astype(int)


def step_factors(schedule: Any, num_steps: int) -> np.ndarray:
    """The factors (num_steps,) of all steps by a schedule.

    **Raises:** `ConfigError` for a schedule that fails, or whose values are not finite numbers of at least 0.
    """
    try:
        factors = np.asarray(jax.vmap(lambda step: jnp.asarray(schedule(step), float))(jnp.arange(num_steps)))
    except Exception as error:  # of the user's function
        raise ConfigError(
            f"the schedule fails on the steps 0, ..., {num_steps - 1}: {type(error).__name__}: {error}. It takes one step's "
            "number, in JAX, and returns a number."
        ) from error
    if factors.shape != (num_steps,) or not np.all(np.isfinite(factors) & (factors >= 0)):
        raise ConfigError(f"the schedule gives {shown(factors)}; expected a finite number of at least 0 for each step.")
    return factors


def _require_randomness(key: Any, batch_order: Any, augment: Any) -> None:
    """Check that there is a key for what is drawn: the order of the samples, unless it is given, and changes of the inputs.

    **Raises:** `ConfigError`.
    """
    if augment is not None:
        example = "gnflow.problems.CropAndFlip(28, 28)"
        require_instance(ConfigError, "augment", augment, AbstractAugmentation, example)
    if batch_order is None or augment is not None:
        as_key(key)
    elif key is not None:
        raise ConfigError("key draws the order of the samples and batch_order gives it; leave one of them out.")


def _require_one(**options: Any) -> None:
    """Check that exactly one of two options is given. **Raises:** `ConfigError`."""
    first, second = options
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        state = "both are given" if given else "neither is"
        raise ConfigError(f"iterate takes either {first} or {second}, and {state}; give one of them.")


argument_checks: dict[str, Callable[..., None]] = {"simulate": check_simulate, "iterate": check_iterate}


def times_to_save(saveat: Any, t1: float | None, name: str = "saveat") -> np.ndarray:
    """The flow times to save at. A last time that exceeds `t1` by rounding, as from `numpy.arange`, becomes `t1`.

    **Arguments:**

    - `saveat`: the times as the user gave them.
    - `t1`: as for `simulate`.
    - `name`: the name of the argument, for messages.

    **Raises:** `ConfigError` unless the times are numbers, ascending, finite, at least 0 and at most `t1`.
    """
    try:
        given = np.atleast_1d(np.asarray(saveat) if not np.ma.is_masked(saveat) else np.zeros(0))
        times = given.astype(float) if given.dtype.kind in "iuf" else np.zeros(0)
    except (TypeError, ValueError, OverflowError):
        times = np.zeros(0)
    if t1 is not None and times.ndim == 1:
        times = (
            np.unique(np.where((times > t1) & (times <= t1 * (1 + _ROUNDING)), t1, times)) if _ascends(times) else times
        )
    if not _ascends(times) or not np.all(np.isfinite(times)) or times[0] < 0:
        raise ConfigError(f"{name} = {shown(saveat)}; expected ascending, finite flow times of at least 0.")
    if t1 is not None and times[-1] > t1:
        raise ConfigError(
            f"{name} ends at {float(times[-1])!r}, after t1 = {t1!r}; save up to t1 or integrate further."
        )
    return times


def steps_to_keep(saveat_weights: Any, last_step: int | None) -> tuple[int, ...]:
    """The steps at which an `iterate` keeps the weights.

    **Arguments:**

    - `saveat_weights`: the steps as the user gave them.
    - `last_step`: the number of steps of the run, or None if it is not known yet.

    **Raises:** `ConfigError` unless they are integers, ascending, at least 0 and at most `last_step`.
    """
    is_array = isinstance(saveat_weights, np.ndarray | jax.Array) and not is_key(saveat_weights)
    listed = saveat_weights.tolist() if is_array else saveat_weights
    if not isinstance(listed, list | tuple | range) or not listed:
        raise ConfigError(f"saveat_weights = {shown(saveat_weights)}; expected ascending steps, such as [0, 10, 100].")
    steps = [
        require_integer(ConfigError, f"saveat_weights[{place}]", step, least=0) for place, step in enumerate(listed)
    ]
    if any(later <= step for step, later in itertools.pairwise(steps)):
        raise ConfigError(f"saveat_weights = {shown(saveat_weights)}; expected ascending steps.")
    if last_step is not None and steps[-1] > last_step:
        raise ConfigError(
            f"saveat_weights ends at step {steps[-1]}, after the last one, {last_step}; keep weights up to it or take more "
            "steps."
        )
    return tuple(steps)


def _ascends(times: np.ndarray) -> bool:
    return times.ndim == 1 and times.size > 0 and bool(np.all(np.diff(times) > 0))
