"""Questions about a model that its shapes answer, asked once."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax

Answer = TypeVar("Answer")


def by_shape(question: Callable[[Any, Any], Answer]) -> Callable[[Any, Any], Answer]:
    """`question(model, x)`, answered once for all models of one structure: a loop over batches asks for every batch.

    **Arguments:** `question`: is given a model and one input whose arrays are `jax.ShapeDtypeStruct`s, and traces them. What it
    raises is not remembered.
    """

    @functools.lru_cache(maxsize=256)
    def remembered(tree: Any, leaves: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> Answer:
        return question(tree.unflatten(leaves), x)

    @functools.wraps(question)
    def ask(model: Any, x: Any) -> Answer:
        leaves, tree = jax.tree.flatten(model)
        stated = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in leaves)
        key = tree, stated, jax.ShapeDtypeStruct(x.shape, x.dtype)
        try:
            hash(key)
        except TypeError:  # a leaf without a hash, such as a slice
            return remembered.__wrapped__(*key)
        return remembered(*key)

    return ask
