"""Require float64: the smallest eigenvalues of a Gram matrix are lost in float32."""

from typing import Any

import jax
import jax.numpy as jnp

from ._errors import PrecisionError


def require_float64(tree: Any, what: str) -> None:
    """Check that JAX runs in double precision and that every floating array of `tree` is float64.

    **Arguments:**

    - `tree`: a pytree.
    - `what`: its name in the message.

    **Raises:** `PrecisionError`, which says how to turn double precision on.
    """
    if jnp.result_type(float) != jnp.float64:
        raise PrecisionError(
            f"{what} needs float64, but JAX runs in float32: the smallest eigenvalues of the NTK Gram matrix would be "
            "rounding noise. Turn double precision on before making any array: "
            'jax.config.update("jax_enable_x64", True), or set the environment variable JAX_ENABLE_X64=1.'
        )
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != jnp.float64:
            raise PrecisionError(
                f"{what}{jax.tree_util.keystr(path)} is {leaf.dtype}, but float64 is needed. It was probably made before "
                "double precision was turned on; make it again, or convert it with .astype(jnp.float64)."
            )
