"""Which arrays of a model are its weights."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._core import ModelError, shown
from ._checks import is_state, require_module, require_weights


def trainable_mask(model: Any) -> PyTree:
    """A pytree of booleans like `model`: True where an array is trained.

    It is the model's own `trainable_mask()`. In a model without one all floating-point arrays are trained, except running
    statistics (`eqx.nn.State`, `eqx.nn.StateIndex`).
    """
    require_module(model)
    if getattr(model, "trainable_mask", None) is not None:
        return _own_mask(model)
    return jax.tree.map(
        lambda leaf: jax.tree.map(lambda _: False, leaf) if is_state(leaf) else eqx.is_inexact_array(leaf),
        model,
        is_leaf=is_state,
    )


def trainable_weights(model: Any) -> tuple[PyTree, PyTree]:
    """Split `model` into its weights (None elsewhere) and the rest; `equinox.combine` joins them again.

    **Raises:** `ModelError` if `model` is not an Equinox module, nothing is trained, weights are complex, or the same array is
    in two places.
    """
    mask = trainable_mask(model)
    require_trained_weights(model, mask)
    weights, structure = eqx.partition(model, mask)
    require_weights(model, weights)
    return weights, structure


def require_trained_weights(model: Any, mask: PyTree) -> None:
    """Check that `mask` trains something of `model`. **Raises:** `ModelError`."""
    if not any(jax.tree.leaves(mask)):
        raise ModelError(
            f"{type(model).__name__} has no trainable weights: none of its leaves is a floating-point array. "
            "Was it built with integer arrays, or passed to eqx.partition before?"
        )


def _own_mask(model: Any) -> PyTree:
    """The model's `trainable_mask()`. **Raises:** `ModelError` unless it is a tree of booleans like the model."""
    name = type(model).__name__
    expected = (
        "expected a tree like the model with True for each floating-point array that is trained, and False elsewhere"
    )
    try:
        mask = model.trainable_mask()
    except Exception as error:
        raise ModelError(f"{name}.trainable_mask() raises {type(error).__name__}: {error}; {expected}.") from error
    leaves = jax.tree.leaves(mask)
    if not all(isinstance(leaf, bool | np.bool_) for leaf in leaves) or len(leaves) != len(jax.tree.leaves(model)):
        raise ModelError(f"{name}.trainable_mask() gives {shown(mask)}; {expected}.")
    for trained, leaf in zip(leaves, jax.tree.leaves(model), strict=True):
        if trained and not eqx.is_inexact_array(leaf):
            raise ModelError(f"{name}.trainable_mask() is True for {shown(leaf)}; {expected}.")
    return mask


def trainable_names(trainable: Any) -> str | tuple[str, ...]:
    """One name of weights that move, or several. **Raises:** `ModelError` for anything else."""
    if isinstance(trainable, str):
        return trainable
    names = tuple(trainable) if isinstance(trainable, Sequence) else (trainable,)
    if not all(isinstance(name, str) for name in names):
        raise ModelError(
            f'trainable = {shown(trainable)}; expected a name such as "output" or "layers[0].bias", several in a tuple, or '
            '"all".'
        )
    return names
