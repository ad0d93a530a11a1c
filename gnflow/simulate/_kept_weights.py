"""The weights that a run keeps along its way: found by their time, and stored as arrays without a class."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._core import ConfigError, RunFolderError, require_number

_ROUNDING = 1e-9  # relative: times that are computed anew, such as 3 * 0.1, are those that were asked for
_TIMES = "kept_times"
_LEAF = "kept_weights.{}"


def kept_time(asked: Any, known: Iterable[float | int], unit: str) -> float | int:
    """The one of the `known` times that was asked for, up to rounding.

    **Arguments:**

    - `asked`: the time as the user gave it.
    - `known`: the times whose weights are kept, ascending.
    - `unit`: "flow time" or "step".

    **Raises:** `ConfigError` for a time whose weights were not kept. The message names those that were.
    """
    time, times = require_number(ConfigError, "time", asked), list(known)
    nearest = min(times, key=lambda other: abs(other - time))
    if math.isclose(nearest, time, rel_tol=_ROUNDING):
        return nearest
    listed = [f"{other:.10g}" for other in times]
    listed = listed if len(listed) <= 12 else [*listed[:6], "...", *listed[-5:]]
    why = f"the run ended at {times[-1]:.10g}" if time > times[-1] else "the weights there were not kept"
    raise ConfigError(
        f"there is no model at {unit} {time:.10g}: {why}. Those kept are at {', '.join(listed)}; ask for more with "
        "saveat_weights=[...] when the run is made."
    )


def kept_arrays(kept: Mapping[float | int, PyTree], arrays: dict[str, np.ndarray]) -> bool:
    """Add kept weights to the arrays of a run folder. **Returns:** whether there are any."""
    if not kept:
        return False
    arrays[_TIMES] = np.asarray(list(kept))
    leaves = zip(*(jax.tree.leaves(weights) for weights in kept.values()), strict=True)
    arrays |= {_LEAF.format(number): np.stack(along) for number, along in enumerate(leaves)}
    return True


def kept_from_arrays(arrays: Mapping[str, np.ndarray], like: PyTree) -> dict[float | int, PyTree]:
    """The inverse of `kept_arrays`.

    **Arguments:**

    - `arrays`: the arrays of the run folder.
    - `like`: the trained weights of the run's model.

    **Raises:** `RunFolderError` if the arrays are missing or do not fit the weights.
    """
    times = arrays.get(_TIMES, np.zeros(0))
    plain = times.ndim == 1 and times.dtype.kind in "if" and times.size > 0
    if not plain or not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
        raise RunFolderError("the times of the kept weights are damaged.")
    leaves, structure = jax.tree.flatten(like)
    found = [arrays.get(_LEAF.format(number), np.zeros(0)) for number in range(len(leaves))]
    for number, (leaf, along) in enumerate(zip(leaves, found, strict=True)):
        fits = along.shape == (len(times), *leaf.shape) and along.dtype == leaf.dtype
        if not fits or not np.all(np.isfinite(along)):
            raise RunFolderError(
                f"the kept weights {number} are {along.shape} {along.dtype}; expected finite numbers, {leaf.shape} "
                f"{leaf.dtype} at each of {len(times)} times."
            )
    return {time: jax.tree.unflatten(structure, rows) for time, *rows in zip(times.tolist(), *found, strict=True)}


def on_device(weights: PyTree) -> PyTree:
    """The weights as arrays of JAX."""
    return jax.tree.map(jnp.asarray, weights)
