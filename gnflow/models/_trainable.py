"""Which arrays of a model are its weights."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._core import ModelError, shown
from ._checks import require_module, require_weights


def trainable_mask(model: Any) -> PyTree:
    """A pytree of booleans like `model`: True where an array is trained.

    What the model's own `trainable_mask()` says; of a model that has none all floating-point arrays but running statistics
    (`eqx.nn.State`, `eqx.nn.StateIndex`), which are no weights.
    """
    own = getattr(model, "trainable_mask", None)
    if own is not None and not isinstance(model, type):
        return own()
    return jax.tree.map(
        lambda leaf: jax.tree.map(lambda _: False, leaf) if _is_state(leaf) else eqx.is_inexact_array(leaf),
        model,
        is_leaf=_is_state,
    )


def trainable_weights(model: Any) -> tuple[PyTree, PyTree]:
    """Split `model` into its weights (None elsewhere) and the rest; `equinox.combine` joins them again.

    **Raises:** `ModelError` if `model` is no Equinox module, nothing is trained, weights are complex, or one array is in two
    places.
    """
    require_module(model)
    weights, structure = eqx.partition(model, trainable_mask(model))
    if not jax.tree.leaves(weights):
        raise ModelError(
            f"{type(model).__name__} has no trainable weights: none of its leaves is a floating-point array. "
            "Was it built with integer arrays, or passed to eqx.partition before?"
        )
    require_weights(model, weights)
    return weights, structure


def as_names(trainable: Any) -> str | tuple[str, ...]:
    """The names of the weights that move: one, or several. **Raises:** `ModelError` for anything else."""
    if isinstance(trainable, str):
        return trainable
    names = tuple(trainable) if isinstance(trainable, Sequence) else (trainable,)
    if not all(isinstance(name, str) for name in names):
        raise ModelError(
            f'trainable = {shown(trainable)}; expected a name such as "output" or "layers[0].bias", several in a tuple, or '
            '"all".'
        )
    return names


def _is_state(leaf: Any) -> bool:
    return isinstance(leaf, eqx.nn.State | eqx.nn.StateIndex)
