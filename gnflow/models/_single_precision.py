"""A model that is evaluated in float32 and trained in float64."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import named_leaves
from ._trainable import trainable_mask, trainable_weights
from ._weight_groups import weight_groups
from ._wrapper import AbstractWrapper


class SinglePrecision(AbstractWrapper):
    """`model` evaluated in float32, for discrete training: outputs, J and J^T have the accuracy of float32.

    The weights are float64, so that small steps add up. Where the model is evaluated they are rounded to float32, and so are
    the inputs; outputs are converted to float64, and what is made of them (losses, Gram matrices, solves) is float64. Flows in
    continuous time refuse it: their error control and small eigenvalues need float64 (docs/own_models.md, Weights in float32).
    `gnflow.iterate` makes one of a model whose weights are float32. Features and pre-activations are those of `model`, in
    float64.

    Source: the float64 copy of the weights is that of Micikevicius et al. 2018, "Mixed precision training", arXiv 1710.03740.

    **Arguments:** `model`: any Equinox module called on one input, with weights in float32 or float64.

    **Attributes:** `model`: the model with weights in float64.

    **Raises:** `ModelError` if `model` has no trainable weights.
    """

    model: Any

    def __init__(self, model: Any):
        trainable_weights(model)  # checks them
        self.model = _cast(model, jnp.float64)

    @property
    def in_float32(self) -> Any:
        """The model with weights in float32, as it is evaluated."""
        return _cast(self.model, jnp.float32)

    @property
    def weight_groups(self) -> dict[str, tuple[str, ...]]:
        """The groups of the model's weights, its leaves and the modules that hold them, under the names that the model has."""
        paths = [path for path, _ in named_leaves(eqx.filter(self.model, eqx.is_inexact_array))]
        parts = {prefix: (prefix,) for path in paths for prefix in _prefixes(path)}
        groups = parts | weight_groups(self.model, paths)
        return {name: tuple(f"model.{path}" for path in members) for name, members in groups.items()}

    def trainable_mask(self) -> "SinglePrecision":
        """What the model trains."""
        return eqx.tree_at(lambda single: single.model, self, trainable_mask(self.model))

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The output at one input; shapes are those of the model."""
        return jnp.asarray(self.in_float32(x.astype(jnp.float32))).astype(jnp.float64)


def has_float32_weights(model: Any) -> bool:
    """Whether all trained weights of a model are float32."""
    if not isinstance(model, eqx.Module):
        return False
    leaves = jax.tree.leaves(eqx.filter(model, trainable_mask(model)))
    return bool(leaves) and all(leaf.dtype == jnp.float32 for leaf in leaves)


def in_single_precision(model: Any) -> bool:
    """Whether a model is, or holds, one that is evaluated in float32."""
    found = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, SinglePrecision))
    return any(isinstance(node, SinglePrecision) for node in found)


def _cast(model: PyTree, dtype: Any) -> PyTree:
    floating = eqx.filter(model, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(lambda leaf: leaf.astype(dtype), floating), model)


def _prefixes(path: str) -> list[str]:
    """ "layers[0].bias" with the modules that hold it: "layers[0].bias", "layers[0]", "layers"."""
    found = [path]
    while max(path.rfind("."), path.rfind("[")) > 0:
        path = path[: max(path.rfind("."), path.rfind("["))]
        found.append(path)
    return found
