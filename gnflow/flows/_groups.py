"""Numbers for groups of weights, by name."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import PyTree

from .._core import ConfigError, ModelError, shown
from ..geometry import System

_REST = "all other weights"


def as_numbers(what: str, value: Any, number: Callable[[str, Any], Any]) -> Any:
    """A number for all weights, or a dictionary of names and numbers.

    **Arguments:**

    - `what`: the argument, for messages.
    - `value`: what was given.
    - `number`: checks one number, given its name for messages.

    **Raises:** `ConfigError` for an empty mapping or names that are no text, and the error of `number`.
    """
    if not isinstance(value, Mapping):
        return number(what, value)
    if not value or not all(isinstance(name, str) for name in value):
        raise ConfigError(
            f"{what} = {shown(value)}; expected a number, or one for each group of weights: {{'hidden': 0.1, 'output': 0.2}}."
        )
    return {name: number(f"{what}[{name!r}]", one) for name, one in value.items()}


def groups_of(what: str, names: Mapping[str, Any], weights: PyTree, system: System) -> dict[str, PyTree]:
    """Disjoint groups of the trained weights: for each name, and for all other weights, a tree of booleans like `weights`.

    **Arguments:**

    - `what`: the argument that has the names, for messages.
    - `names`: names of weights as in `Frozen`.

    **Raises:** `ModelError` for a name that no trained weights have, and for weights with two names.
    """
    leaves, tree = jax.tree.flatten(weights)
    owners = [_REST] * len(leaves)
    for name in names:
        for index in (i for i, here in enumerate(jax.tree.leaves(system.named(weights, name))) if here):
            if owners[index] != _REST:
                raise ModelError(
                    f"{what} gives two numbers to the same weights, as {owners[index]!r} and as {name!r}; name them once."
                )
            owners[index] = name
    return {name: jax.tree.unflatten(tree, [owner == name for owner in owners]) for name in dict.fromkeys(owners)}


def numbers_of(what: str, value: Any, otherwise: float, weights: PyTree, system: System) -> PyTree:
    """A tree like `weights` with the number of each leaf.

    **Arguments:**

    - `what`, `value`: the argument and what `as_numbers` made of it.
    - `otherwise`: the number of weights without a name.

    **Raises:** the errors of `groups_of`.
    """
    if not isinstance(value, Mapping):
        return jax.tree.map(lambda _: value, weights)
    numbers = jax.tree.map(lambda _: otherwise, weights)
    for name, group in groups_of(what, value, weights, system).items():
        if name in value:
            numbers = jax.tree.map(lambda number, here, name=name: value[name] if here else number, numbers, group)
    return numbers
