"""Kinds of arrays without numbers to read: those that JAX traces, and random keys."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

Numbers = np.ndarray | jax.Array
"""Arrays of NumPy, and those of JAX inside a program that it traces."""


def is_traced(value: Any) -> bool:
    """Whether `value` belongs to a program that JAX is tracing (`jax.jit`, `jax.lax.scan`, `jax.vmap`, `jax.grad`).

    A traced array has a shape and a dtype, which can be checked, but no numbers.
    """
    return isinstance(value, jax.core.Tracer)


def is_key(value: Any) -> bool:
    """Whether `value` is an array of typed random keys (`jax.random.key`), which NumPy cannot hold."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
