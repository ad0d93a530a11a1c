"""A function of one input mapped over many, so that what it needs on the way does not grow with their number."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

# Inputs at once: enough for matrix products at full speed.
_BATCH = 1024


def in_batches(function: Callable[[Array], Any], inputs: Array) -> Any:
    """`jax.vmap(function)(inputs)`, at most 1024 inputs at once.

    What `function` computes on the way (the activations of a network) is held for one batch only; the results, which are held
    for all inputs, are those of `jax.vmap` to rounding.

    **Arguments:** `function`: of one input, in JAX; `inputs` (n, ...).
    """
    if inputs.shape[0] <= _BATCH:
        return jax.vmap(function)(inputs)
    return jax.lax.map(function, inputs, batch_size=_BATCH)
