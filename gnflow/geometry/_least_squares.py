"""Truncated least squares with many right-hand sides, for the features of a layer."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._row_products import row_products
from .directions import relative_residual

_EPSILON = float(jnp.finfo(jnp.float64).eps)


class LeastSquares(eqx.Module):
    """The solution X = A^+ T with A = [features, 1].

    **Attributes:**

    - `weight`: the rows of X (h, m) for the features.
    - `bias`: the row of X (m,) for the 1.
    - `fitted`: A X (n, m).
    - `rank`: the number of singular values that are kept.
    - `relative_residual`: ||A X - T|| / ||T||.
    """

    weight: Float[Array, "features targets"]
    bias: Float[Array, " targets"]
    fitted: Float[Array, "samples targets"]
    rank: Int[Array, ""]
    relative_residual: Float[Array, ""]


def least_squares_with_bias(
    features: Float[Array, "samples features"],
    targets: Float[Array, "samples targets"],
    rtol: float | Array,
    atol: float | Array = 0.0,
) -> LeastSquares:
    """The minimum-norm X that minimises ||[features, 1] X - targets||, over singular values above max(atol, rtol sigma_max).

    It takes one eigendecomposition of A A^T or A^T A, whichever is smaller. That squares the condition number; one step of
    iterative refinement with A itself recovers the digits this costs. In the squared matrix singular values below
    sqrt(max(n, h + 1) eps) times the largest (eps: machine epsilon) cannot be told from zero, so they are never kept. Cost: the
    product and an eigendecomposition of size min(n, h + 1); O(n h) memory beside it.

    **Arguments:**

    - `features`: the features (n, h).
    - `targets`: the right-hand sides T (n, m).
    - `rtol`: >= 0, relative to the largest singular value sigma_max, dimensionless.
    - `atol`: >= 0, in the unit of the features.
    """
    num_samples, num_features = features.shape

    def product(weight: Array, bias: Array) -> Array:
        return features @ weight + bias[None, :]

    def transpose_product(coefficients: Array) -> tuple[Array, Array]:
        return features.T @ coefficients, jnp.sum(coefficients, axis=0)

    wide = num_samples <= num_features + 1
    if wide:
        gram = row_products(features, features) + 1.0
    else:
        sums = jnp.sum(features, axis=0)[:, None]
        columns = features.T
        gram = jnp.block([[row_products(columns, columns), sums], [sums.T, jnp.full((1, 1), float(num_samples))]])
    eigenvalues, vectors = jnp.linalg.eigh(gram)
    relative = jnp.maximum(rtol**2, max(num_samples, num_features + 1) * _EPSILON)
    cutoff = jnp.maximum(relative * eigenvalues[-1], atol**2)
    kept = eigenvalues > cutoff
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, eigenvalues, 1.0), 0.0)

    def solve(residual: Array) -> tuple[Array, Array]:
        if wide:
            return transpose_product(vectors @ (inverse[:, None] * (vectors.T @ residual)))
        weight, bias = transpose_product(residual)
        right_hand_side = jnp.concatenate([weight, bias[None, :]])
        solution = vectors @ (inverse[:, None] * (vectors.T @ right_hand_side))
        return solution[:-1], solution[-1]

    weight, bias = solve(targets)
    # One step of iterative refinement, because the Gram matrix has squared the condition number.
    more_weight, more_bias = solve(targets - product(weight, bias))
    weight, bias = weight + more_weight, bias + more_bias
    fitted = product(weight, bias)
    return LeastSquares(weight, bias, fitted, jnp.sum(kept), relative_residual(fitted - targets, targets))
