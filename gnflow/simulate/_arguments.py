"""Defaults and checks of what `simulate` and `iterate` are told, so that a configuration can be refused before any run."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import ConfigError, require_positive_int
from ..optimisers import as_optimiser
from ..solvers import check_solver
from ._controller import get_error_norm
from .stop import RelativeLoss, stop_rules

DEFAULT_STOP = RelativeLoss(1e-8)
_LEAST_RTOL = 1e-14
DEFAULT_ATOL = 1e-13
DEFAULT_MAX_STEPS = 16384


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
) -> None:
    """Check the numbers and names of a `simulate`. **Raises:** `ConfigError`, naming the value and what was expected."""
    if t1 is None and not stop_rules(stop):
        raise ConfigError("neither t1 nor a stop rule is given, so the run would have no end; give one of them.")
    if t1 is not None and not _lies_between(0.0, t1, math.inf):
        raise ConfigError(f"t1 = {t1!r}; expected a positive, finite flow time (the run begins at 0).")
    if rtol is not None and not _lies_between(_LEAST_RTOL, rtol, 1.0):
        raise ConfigError(
            f"rtol = {rtol!r}; expected a number between {_LEAST_RTOL:g} (rounding) and 1, or None for the default."
        )
    if not _lies_between(0.0, atol, math.inf):
        raise ConfigError(f"atol = {atol!r}; expected a positive number: below it errors are rounding, such as 1e-13.")
    require_positive_int(ConfigError, max_steps=max_steps)
    check_solver(solver)
    get_error_norm(error_norm)
    if saveat is not None:
        _check_save_times(saveat, t1)


def check_iterate(
    *,
    step_size: float | None = None,
    optimiser: Any = None,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    batch_size: int | None = None,
    key: Any = None,
    save_every: int | None = None,
    stop: Any = None,
) -> None:
    """Check the numbers of an `iterate`. **Raises:** `ConfigError`, naming the value and what was expected."""
    _require_one(step_size=step_size, optimiser=optimiser)
    _require_one(num_steps=num_steps, num_epochs=num_epochs)
    if optimiser is not None:
        as_optimiser(optimiser)
    elif not (isinstance(step_size, int | float) and math.isfinite(step_size) and step_size > 0):
        raise ConfigError(f"step_size = {step_size!r}; expected a positive, finite number.")
    sizes = {"num_steps": num_steps, "num_epochs": num_epochs, "batch_size": batch_size, "save_every": save_every}
    require_positive_int(ConfigError, **{name: size for name, size in sizes.items() if size is not None})
    if batch_size is not None:
        shuffling_key(key)
    elif key is not None:
        raise ConfigError(
            f"key = {key!r} without batch_size; steps with all samples draw nothing: give both or neither."
        )
    stop_rules(stop)


def check_batch_size(batch_size: int | None, num_train: int) -> None:
    """**Raises:** `ConfigError` if a batch has more samples than there are."""
    if batch_size is not None and batch_size > num_train:
        raise ConfigError(
            f"batch_size = {batch_size}, but there are {num_train} training samples; take at most so many, or leave "
            "batch_size out to take all of them."
        )


def shuffling_key(key: Any) -> Any:
    """The JAX key that `key`, one itself or an integer, stands for. **Raises:** `ConfigError` for anything else."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool) and key >= 0:
        return jax.random.key(int(key))
    if isinstance(key, jax.Array):
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
        if typed or (key.dtype == jnp.uint32 and key.shape == (2,)):
            return key
    raise ConfigError(
        f"key = {key!r}; batches are drawn at random, so a JAX key is needed, such as jax.random.key(0), or an integer of at "
        "least 0."
    )


def _require_one(**options: Any) -> None:
    """**Raises:** `ConfigError` unless exactly one of two options is given."""
    first, second = options
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        state = "both are given" if given else "neither is"
        raise ConfigError(f"iterate takes either {first} or {second}, and {state}; give one of them.")


argument_checks: dict[str, Callable[..., None]] = {"simulate": check_simulate, "iterate": check_iterate}


def _lies_between(low: float, value: Any, high: float) -> bool:
    """Whether `value` is a number strictly between the two; False for what is no number."""
    try:
        return bool(low < value < high)
    except (TypeError, ValueError):
        return False


def _check_save_times(saveat: Any, t1: float | None) -> None:
    try:
        times = np.atleast_1d(np.asarray(saveat, dtype=float))
    except (TypeError, ValueError):
        times = np.zeros(0)
    ascending = times.ndim == 1 and times.size > 0 and bool(np.all(np.diff(times) > 0))
    if not ascending or not np.all(np.isfinite(times)) or times[0] < 0:
        raise ConfigError(f"saveat = {saveat!r}; expected ascending, finite flow times of at least 0.")
    if t1 is not None and times[-1] > t1:
        raise ConfigError(
            f"saveat ends at {float(times[-1])!r}, after t1 = {t1!r}; save up to t1 or integrate further."
        )
