"""Pytrees of weights: vector algebra, and names of leaves. `None` leaves (weights that do not move) stay `None`."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def tree_dot(left: PyTree, right: PyTree) -> Float[Array, ""]:
    """Euclidean inner product of two trees of the same structure."""
    products = jax.tree.map(lambda a, b: jnp.vdot(a, b), left, right)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))


def tree_norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm over all numbers of the tree."""
    return jnp.sqrt(tree_dot(tree, tree))


def tree_size(tree: PyTree) -> int:
    """The number of numbers in the tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def tree_rms(tree: PyTree) -> Float[Array, ""]:
    """Root mean square over all numbers of the tree."""
    return tree_norm(tree) / max(tree_size(tree), 1) ** 0.5


def tree_scale(factor: Float[Array, ""] | float, tree: PyTree) -> PyTree:
    """`factor * tree`."""
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def tree_subtract(left: PyTree, right: PyTree) -> PyTree:
    """`left - right`."""
    return jax.tree.map(lambda a, b: a - b, left, right)


def tree_add_scaled(tree: PyTree, factor: Float[Array, ""] | float, direction: PyTree) -> PyTree:
    """`tree + factor * direction`."""
    return jax.tree.map(lambda a, b: a + factor * b, tree, direction)


def tree_multiply(left: PyTree, right: PyTree) -> PyTree:
    """The product of two trees entry by entry; leaves of the first may be single numbers."""
    return jax.tree.map(lambda a, b: a * b, left, right)


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of the tree, each with its path as Python writes it: "layers[0].bias"."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path).removeprefix("."), leaf) for path, leaf in flat]


def is_within(path: str, prefix: str) -> bool:
    """Whether the leaf at `path` is the one at `prefix` or belongs to it: "layers[0].bias" is within "layers[0]"."""
    return path == prefix or path.startswith((prefix + ".", prefix + "["))
