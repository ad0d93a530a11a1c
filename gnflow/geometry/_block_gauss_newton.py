"""The block-wise Gauss-Newton update of a reversible network."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..models import HalfBlock, ReversibleMLP
from ._least_squares import LeastSquares, least_squares_with_bias, no_ridge
from .damping import Spectrum
from .directions import SolveDiagnostics, relative_residual

# A relative residual above this is more than rounding: the update is then truncated.
EXACT = 1e-8


def block_gauss_newton(
    weights: ReversibleMLP,
    structure: ReversibleMLP,
    x: Float[Array, "samples width"],
    features: Float[Array, "samples width"],
    change: Float[Array, "samples outputs"],
    rtol: float | Array,
    atol: float | Array = 0.0,
    ridge: Callable[[Spectrum], Float[Array, ""]] = no_ridge,
) -> tuple[PyTree, SolveDiagnostics]:
    """The update delta/L of the weights, where the delta_b = J_b^+ (change u^T) of each block would do the whole change alone.

    The last features have to change by `change` u^T. If the features [s(zC), 1] of every half-block have full row rank, then
    J delta/L = change u^T: the outputs change by `change` to first order. Blocks are visited from the last to the first, and
    each block's inputs are recomputed from its outputs. So the memory beside weights and update does not grow with L: it is
    O(n (h + d) + min(n, h + 1)^2). Cost: 2L eigendecompositions of size min(n, h + 1). Source: Buffelli et al., arXiv
    2411.07979, Section 4; derived in docs/reversible.md.

    With a ridge each half-block solves its least-squares problem with eps ||X||^2 added, and G makes up for what F then does
    (docs/reversible.md, Damped blocks). The outputs then change by less than `change`, by `relative_residual` of it.

    **Arguments:**

    - `weights`, `structure`: the model split into trained arrays and the rest.
    - `x`: the inputs (n, d).
    - `features`: the model's `hidden_features(x)` (n, d), from which it is run backwards.
    - `change`: the change of the outputs (n, C).
    - `rtol`, `atol`: singular values up to max(atol, rtol times the largest of the half-block) are left out.
    - `ridge`: gives the eps >= 0 of a half-block from the spectrum of its A A^T, where A = [s(zC), 1]; 0 by default.

    **Returns:** the update, a tree like the weights, and diagnostics:

    - `damping`: the largest eps of a half-block.
    - `rank`: the smallest rank of a half-block.
    - `relative_residual`: ||J delta/L - change u^T|| / ||change u^T|| in the d last features, measured by a forward pass.
    - `truncated`: whether that is more than rounding (1e-8).
    - `half_block_rank`, `half_block_residual`, `half_block_damping`: ranks, residuals and eps of the half-blocks.
    """
    model: ReversibleMLP = eqx.combine(weights, structure)
    num_blocks = model.num_blocks
    target = change @ model.output_projection.T

    def hidden(moving: PyTree) -> Array:
        return eqx.combine(moving, structure).hidden_features(x)

    def backwards(carry: tuple[Array, Array], block: tuple[HalfBlock, HalfBlock]) -> Any:
        carry, solutions = _one_block(block, *carry, rtol, atol, ridge)
        update = [
            jnp.stack(parts) / num_blocks for parts in zip(*[(s.weight.T, s.bias) for s in solutions], strict=True)
        ]
        return carry, (
            update,
            jnp.stack([s.rank for s in solutions]),
            jnp.stack([s.relative_residual for s in solutions]),
            jnp.stack([s.ridge for s in solutions]),
        )

    # A scan holds one block's features at a time. In an unrolled loop XLA may compute the blocks side by side, and hold all.
    _, (parts, ranks, residuals, ridges) = model.scan(backwards, (features, target), reverse=True)
    update = eqx.tree_at(lambda tree: (tree.weight, tree.bias), weights, tuple(parts))
    reached = jax.jvp(hidden, (weights,), (update,))[1]
    residual = relative_residual(reached - target, target)
    diagnostics = SolveDiagnostics(
        damping=jnp.max(ridges),
        rank=jnp.min(ranks),
        relative_residual=residual,
        success=jnp.isfinite(residual),
        kept=jnp.sum(ranks),
        truncated=~(residual <= EXACT),  # also True for nan
        half_block_rank=ranks.reshape(-1),
        half_block_residual=residuals.reshape(-1),
        half_block_damping=ridges.reshape(-1),
    )
    return update, diagnostics


def _one_block(
    block: tuple[HalfBlock, HalfBlock],
    features: Array,
    tangent: Array,
    rtol: float | Array,
    atol: float | Array,
    ridge: Callable[[Spectrum], Float[Array, ""]],
) -> tuple[tuple[Array, Array], tuple[LeastSquares, LeastSquares]]:
    """The block's inputs and the tangent at these, with the solutions for F and G.

    The tangent at the inputs is the derivative of the inverse block along `tangent`: it moves the network's outputs as
    `tangent` does at this block's outputs.
    """
    f, g = block
    y1, y2 = jnp.split(features, 2, axis=1)
    t1, t2 = jnp.split(tangent, 2, axis=1)
    g_features, g_slopes = g.features_and_slopes(y1)
    x2 = y2 - g.combine(g_features)
    f_features, f_slopes = f.features_and_slopes(x2)
    x1 = y1 - f.combine(f_features)
    solution_f = least_squares_with_bias(f_features, t1, rtol, atol, ridge)
    # The change of F moves y1, and through G also y2; G only has to make up for the rest.
    left = t2 - g.derivative(g_slopes, solution_f.fitted)
    solution_g = least_squares_with_bias(g_features, left, rtol, atol, ridge)
    s2 = t2 - g.derivative(g_slopes, t1)
    s1 = t1 - f.derivative(f_slopes, s2)
    carry = jnp.concatenate([x1, x2], axis=1), jnp.concatenate([s1, s2], axis=1)
    return carry, (solution_f, solution_g)
