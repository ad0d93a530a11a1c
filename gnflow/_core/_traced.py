"""Arrays whose numbers are not known yet."""

from typing import Any

import jax.core


def is_traced(value: Any) -> bool:
    """Whether `value` belongs to a program that JAX is making (`jax.jit`, `jax.lax.scan`, `jax.vmap`, `jax.grad`).

    It has a shape and a dtype, which can be checked, and no numbers.
    """
    return isinstance(value, jax.core.Tracer)
