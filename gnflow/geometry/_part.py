"""The tangent for a group of weights alone."""

import equinox as eqx
import jax
from jaxtyping import PyTree

from ._dispatch import tangent_of
from ._system import System
from ._tangent import AbstractTangent


def tangent_of_part(system: System, weights: PyTree, group: PyTree) -> AbstractTangent:
    """The tangent of the training outputs at `weights`, with respect to the weights of a group alone.

    **Arguments:**

    - `system`: the problem and the model's structure.
    - `weights`: the trained weights.
    - `group`: a tree of booleans like `weights`.
    """
    moving = jax.tree.map(lambda leaf, here: leaf if here else None, weights, group)
    resting = jax.tree.map(lambda leaf, here: None if here else leaf, weights, group)
    return tangent_of(eqx.combine(system.structure, resting), moving, system.problem.x_train)
