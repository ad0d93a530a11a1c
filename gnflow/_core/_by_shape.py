"""Cache what depends on the shapes of a model alone."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax

Answer = TypeVar("Answer")


def by_shape(question: Callable[[Any, Any], Answer]) -> Callable[[Any, Any], Answer]:
    """`question(model, x)`, answered once for all models of one structure.

    Without the cache a loop over batches, which makes a system for every batch, would trace the model each time.

    **Arguments:** `question`: a function of a model and one input (an array or a tree of arrays), both with
    `jax.ShapeDtypeStruct`s for their arrays, which it may trace. An error that it raises is not remembered.
    """

    @functools.lru_cache(maxsize=256)
    def remembered(tree: Any, leaves: tuple[Any, ...]) -> Answer:
        return question(*tree.unflatten(leaves))

    @functools.wraps(question)
    def ask(model: Any, x: Any) -> Answer:
        leaves, tree = jax.tree.flatten((model, x))
        stated = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in leaves)
        key = tree, stated
        try:
            hash(key)
        except TypeError:  # a leaf has no hash, such as a slice
            return remembered.__wrapped__(*key)
        return remembered(*key)

    return ask
