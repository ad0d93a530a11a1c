"""Which arrays of a model are its weights."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._core import ModelError


def trainable_mask(model: Any) -> PyTree:
    """A pytree of booleans like `model`: True where an array is trained.

    What the model's own `trainable_mask()` says, or all floating-point arrays of a model that has none.
    """
    own = getattr(model, "trainable_mask", None)
    return jax.tree.map(eqx.is_inexact_array, model) if own is None else own()


def trainable_weights(model: Any) -> tuple[PyTree, PyTree]:
    """Split `model` into its weights (None elsewhere) and the rest; `equinox.combine` joins them again.

    **Raises:** `ModelError` if nothing is trained.
    """
    weights, structure = eqx.partition(model, trainable_mask(model))
    if not jax.tree.leaves(weights):
        raise ModelError(
            f"{type(model).__name__} has no trainable weights: none of its leaves is a floating-point array. "
            "Was it built with integer arrays, or passed to eqx.partition before?"
        )
    return weights, structure
