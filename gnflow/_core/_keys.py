"""Random keys among arrays."""

from typing import Any

import jax
import jax.numpy as jnp


def is_key(value: Any) -> bool:
    """Whether `value` is an array of typed random keys (`jax.random.key`), which NumPy cannot hold."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
