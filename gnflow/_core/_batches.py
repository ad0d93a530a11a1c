"""Map a function over many inputs in batches, so that its memory does not grow with their number."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

# Inputs per batch: enough for matrix products at full speed.
_BATCH = 1024


def in_batches(function: Callable[[Array], Any], inputs: Array) -> Any:
    """`jax.vmap(function)(inputs)`, at most 1024 inputs at once.

    Intermediate results (the activations of a network) are held for one batch only. The values are those of `jax.vmap` to
    rounding, and are held for all inputs.

    **Arguments:**

    - `function`: a function of one input, in JAX.
    - `inputs`: the inputs (n, ...).
    """
    if inputs.shape[0] <= _BATCH:
        return jax.vmap(function)(inputs)
    return jax.lax.map(function, inputs, batch_size=_BATCH)
