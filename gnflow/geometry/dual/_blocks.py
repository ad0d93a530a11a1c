"""One dual problem for each block of weights: block-diagonal Gauss-Newton in dual variables."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import ConfigError, ModelError, named_leaves, shown, tree_dot, tree_scale
from ...models._weight_groups import layers_of
from .._system import System
from .._tangent import AbstractTangent
from ..directions import SolveDiagnostics
from ._base import AbstractDualOracle

_LAYERS = "layers"


class BlockDirection(eqx.Module):
    """d = t (d_1, ..., d_B): the direction of each block of weights, and one length for all of them.

    **Attributes:**

    - `displacement`: d, a tree like the weights.
    - `change`: J d (N, C).
    - `length`: t.
    - `diagnostics`: those of the blocks' solves as one: the least rank, the largest residual, the sums of iterations and of
      duality gaps, the largest relative gap; successful if all were.
    """

    displacement: PyTree
    change: Float[Array, "samples outputs"]
    length: Float[Array, ""]
    diagnostics: SolveDiagnostics


def check_blocks(what: str, blocks: Any) -> str | tuple[str, ...] | None:
    """`blocks`, if it is None, "layers" or names. **Raises:** `ConfigError`."""
    if blocks is None or blocks == _LAYERS:
        return blocks
    if not isinstance(blocks, tuple | list) or not blocks or not all(isinstance(name, str) for name in blocks):
        raise ConfigError(
            f'{what} = {shown(blocks)}; expected "layers", names of weights such as ("hidden", "output"), or None for all of '
            "the weights at once."
        )
    return tuple(blocks)


def blocks_of(blocks: str | tuple[str, ...], weights: PyTree, system: System) -> list[PyTree]:
    """Disjoint blocks that are all of the trained weights together, each a tree of booleans like `weights`.

    **Arguments:**

    - `blocks`: "layers" (`gnflow.models._weight_groups.layers_of`), or names as in `gnflow.flows.Frozen`.

    **Raises:** `ModelError` for a name that no trained weights have, and for weights with no name or with two.
    """
    paths = [path for path, _ in named_leaves(weights)]
    tree = jax.tree.structure(weights)
    if isinstance(blocks, str):
        owners = layers_of(system.structure, paths)
    else:
        owners = [""] * len(paths)
        for name in blocks:
            for index in (i for i, here in enumerate(jax.tree.leaves(system.named(weights, name))) if here):
                if owners[index]:
                    raise ModelError(
                        f"blocks: {paths[index]} belongs to {owners[index]!r} and to {name!r}; give weights one block."
                    )
                owners[index] = name
        if "" in owners:
            raise ModelError(f"blocks: {paths[owners.index('')]} belongs to none of {blocks!r}; name a block for it.")
    return [jax.tree.unflatten(tree, [owner == name for owner in owners]) for name in dict.fromkeys(owners)]


def block_direction(
    oracle: AbstractDualOracle,
    system: System,
    weights: PyTree,
    tangent: AbstractTangent,
    masks: list[PyTree],
    gamma: Float[Array, ""] | float,
) -> BlockDirection:
    """The directions of the blocks, each as if the other weights did not move, scaled by one length.

    d_b = argmin (1/N) sum_n q_n(f_n + J_{n,b} d_b) + ||d_b||^2/(2 gamma) has the Jacobian of its block alone. As each block
    takes the whole decrease on itself, their sum goes too far, up to B times for B blocks. It is scaled by the t >= 0 at which
    the model of all weights, P(t d), is smallest (Martens and Grosse 2015, arXiv 1503.05671, Section 6.4). P is there at most
    the mean of the blocks' minima, and so not above P(0) (docs/dual.md, Blocks of weights).

    **Arguments:**

    - `oracle`: solves each block.
    - `system`, `weights`, `tangent`: the problem, where, and the tangent of all weights there.
    - `masks`: the blocks, of `blocks_of`.
    - `gamma`: > 0, in units of 1/(H A).
    """
    targets = system.problem.y_train
    solves, parts = [], []
    for mask in masks:
        moving, fixed = eqx.partition(weights, mask)
        structure = eqx.combine(fixed, system.structure)
        inner = eqx.tree_at(lambda s: s.structure, system, structure, is_leaf=lambda leaf: leaf is system.structure)
        own = inner.tangent(moving)
        one = oracle.solve(own, system.loss, targets, gamma)
        solves.append(one.diagnostics)
        parts.append(one.displacement(own))
    together = eqx.combine(*parts)
    change = tangent.jvp(together)
    length = oracle.length(system.loss, tangent.outputs, targets, change, tree_dot(together, together) / gamma)
    return BlockDirection(
        displacement=tree_scale(length, together),
        change=length * change,
        length=length,
        diagnostics=_as_one(solves),
    )


def _as_one(solves: list[SolveDiagnostics]) -> SolveDiagnostics:
    def over_blocks(name: str) -> Array:
        return jnp.stack([getattr(solve, name) for solve in solves])

    iterations = None if solves[0].iterations is None else jnp.sum(over_blocks("iterations"))
    return SolveDiagnostics(
        damping=solves[0].damping,
        rank=jnp.min(over_blocks("rank")),
        relative_residual=jnp.max(over_blocks("relative_residual")),
        success=jnp.all(over_blocks("success")),
        iterations=iterations,
        duality_gap=jnp.sum(over_blocks("duality_gap")),
        relative_duality_gap=jnp.max(over_blocks("relative_duality_gap")),
    )
