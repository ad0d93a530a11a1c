"""Measure along any path of weights, such as one that Diffrax integrated."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError, GnflowError, jit_for_states, on_one_line, require_instance, shown
from ..flows import AbstractFlow
from ..geometry import System
from ._measure import Measurement, Values, as_metrics, numbers_as_arrays
from ._trajectory import make_dataset, stack_rows

if TYPE_CHECKING:
    import xarray


def measure(
    flow: AbstractFlow, system: System, times: Any, weights: PyTree, *, metrics: tuple[Any, ...] = ()
) -> "xarray.Dataset":
    """Losses and metrics along a path of weights that something else made, as `simulate` measures them along a flow.

    **Arguments:**

    - `flow`: the flow whose velocity the metrics read that read w' (`NTKVelocity`, `DirectionDiagnostics`).
    - `system`: from `flow.system(problem, model)`.
    - `times`: the times of the path (T,), ascending.
    - `weights`: the weights at these times: a tree like `system.weights(model)` with a first axis of length T in each leaf,
      as `diffrax.diffeqsolve` returns them in `ys`.
    - `metrics`: what to evaluate beside the losses. What they remember of the start is taken from the first weights.

    **Returns:** an `xarray.Dataset` over "time" with `train_loss`, `test_loss` if there is test data, and the variables of the
    metrics.

    **Raises:** `ConfigError` for times that do not ascend, weights that are not those of `system` at T times, and metrics that
    are integrals along a flow (`PathLength`), which states at some times do not tell; the errors of metrics that are not
    defined for `system`.
    """
    require_instance(ConfigError, "flow", flow, AbstractFlow, "a flow such as gnflow.flows.GradientFlow()")
    require_instance(ConfigError, "system", system, System, "flow.system(problem, model)")
    index = _ascending(times)
    _require_weights(system, weights, len(index))
    metrics = as_metrics(metrics)
    measurement = numbers_as_arrays(Measurement.of(flow, metrics, system))
    variables = measurement.variables(system)
    rows = [jax.tree.map(lambda leaf, place=place: jnp.asarray(leaf)[place], weights) for place in range(len(index))]
    for metric in metrics:
        if jax.eval_shape(metric.integrands, rows[0]):
            raise ConfigError(
                f"{type(metric).__name__} is an integral along a flow, which weights at some times do not tell; leave it out."
            )
    memories = _remember(rows[0], system, measurement)
    values = [_values(jnp.asarray(at), row, system, measurement, memories) for at, row in zip(index, rows, strict=True)]
    return make_dataset(stack_rows(values), variables, "time", index, {"long_name": "time", "units": "flow time"})


@jit_for_states
def _remember(weights: PyTree, system: System, measurement: Measurement) -> tuple[PyTree, ...]:
    return measurement.prepare(weights, system)


@jit_for_states
def _values(
    time: Float[Array, ""], weights: PyTree, system: System, measurement: Measurement, memories: tuple[PyTree, ...]
) -> Values:
    return measurement.values(time, weights, {}, system, memories)


def _ascending(times: Any) -> np.ndarray:
    """The times (T,). **Raises:** `ConfigError`."""
    try:
        given = np.asarray(times)
        index = given.astype(float) if given.dtype.kind in "iuf" else np.zeros(0)
    except (TypeError, ValueError):
        index = np.zeros(0)
    if index.ndim != 1 or not index.size or not np.all(np.isfinite(index)) or np.any(np.diff(index) <= 0):
        raise ConfigError(f"times = {shown(times)}; expected ascending, finite times (T,).")
    return index


def _require_weights(system: System, weights: PyTree, count: int) -> None:
    """Check that `weights` are trained weights of `system` at `count` times. **Raises:** `ConfigError`."""
    leaves = jax.tree.leaves(weights)
    expected = "expected a tree like system.weights(model) with a first axis for the times"
    wrong = [np.shape(leaf) for leaf in leaves if not eqx.is_array_like(leaf) or np.shape(leaf)[:1] != (count,)]
    if wrong or not leaves:
        what = f"hold an array of shape {wrong[0]} for {count} times" if wrong else "hold no arrays"
        raise ConfigError(f"weights {what}; {expected}.")
    try:
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf)[1:], jnp.result_type(leaf)), weights)
        jax.eval_shape(system.train_loss, one)
    except GnflowError:
        raise
    except Exception as error:
        raise ConfigError(
            f"weights are not those of {type(system.structure).__name__} ({type(error).__name__}: {on_one_line(error)}); "
            f"{expected}."
        ) from error
