"""Truncated and damped least squares with many right-hand sides, for the features of a layer."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._row_products import row_products
from .damping import Spectrum
from .directions import relative_residual

_EPSILON = float(jnp.finfo(jnp.float64).eps)


class LeastSquares(eqx.Module):
    """The solution X = (A^T A + eps)^+ A^T T with A = [features, 1]; A^+ T if eps = 0.

    **Attributes:**

    - `weight`: the rows of X (h, m) for the features.
    - `bias`: the row of X (m,) for the 1.
    - `fitted`: A X (n, m).
    - `rank`: the number of singular values that are kept.
    - `relative_residual`: ||A X - T|| / ||T||.
    - `ridge`: eps, in units of A A^T.
    """

    weight: Float[Array, "features targets"]
    bias: Float[Array, " targets"]
    fitted: Float[Array, "samples targets"]
    rank: Int[Array, ""]
    relative_residual: Float[Array, ""]
    ridge: Float[Array, ""]


def no_ridge(spectrum: Spectrum) -> Float[Array, ""]:
    """eps = 0."""
    return jnp.zeros(())


def least_squares_with_bias(
    features: Float[Array, "samples features"],
    targets: Float[Array, "samples targets"],
    rtol: float | Array,
    atol: float | Array = 0.0,
    ridge: Callable[[Spectrum], Float[Array, ""]] = no_ridge,
) -> LeastSquares:
    """The minimum-norm X that minimises ||A X - T||^2 + eps ||X||^2 with A = [features, 1], over singular values of A above
    max(atol, rtol sigma_max).

    It takes one eigendecomposition of A A^T or A^T A, whichever is smaller. That squares the condition number; one step of
    iterative refinement with A itself recovers the digits this costs. In the squared matrix singular values below
    sqrt(max(n, h + 1) eps) times the largest (eps: machine epsilon) cannot be told from zero, so they are never kept. Cost: the
    product and an eigendecomposition of size min(n, h + 1); O(n h) memory beside it.

    **Arguments:**

    - `features`: the features (n, h).
    - `targets`: the right-hand sides T (n, m).
    - `rtol`: >= 0, relative to the largest singular value sigma_max, dimensionless.
    - `atol`: >= 0, in the unit of the features.
    - `ridge`: gives eps >= 0 from the spectrum of A A^T, in which singular values that are left out count as zero.
    """
    num_samples, num_features = features.shape
    wide = num_samples <= num_features + 1

    def product(weight: Array, bias: Array) -> Array:
        return features @ weight + bias[None, :]

    def transpose_product(coefficients: Array) -> tuple[Array, Array]:
        return features.T @ coefficients, jnp.sum(coefficients, axis=0)

    # X = A^T z with (A A^T + eps) z = T, or X = z with (A^T A + eps) z = A^T T: whichever matrix is smaller.
    def right_hand_side(residual: Array) -> Array:
        if wide:
            return residual
        weight, bias = transpose_product(residual)
        return jnp.concatenate([weight, bias[None, :]])

    def solution(z: Array) -> tuple[Array, Array]:
        return transpose_product(z) if wide else (z[:-1], z[-1])

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
    nonzero = jnp.where(kept, eigenvalues, 1.0)
    more_zeros = jnp.zeros(num_samples - eigenvalues.size if not wide else 0)

    def target_energies() -> Array:
        squares = jnp.sum((vectors.T @ right_hand_side(targets)) ** 2, axis=1)
        return jnp.concatenate([more_zeros, jnp.where(kept, squares if wide else squares / nonzero, 0.0)])

    spectrum = Spectrum.of(
        jnp.concatenate([more_zeros, jnp.where(kept, eigenvalues, 0.0)]), target_energies=target_energies
    )
    eps = ridge(spectrum)
    inverse = jnp.where(kept, 1.0 / (nonzero + eps), 0.0)

    def solve(right: Array) -> Array:
        return vectors @ (inverse[:, None] * (vectors.T @ right))

    z = solve(right_hand_side(targets))
    weight, bias = solution(z)
    # One step of iterative refinement, because the Gram matrix has squared the condition number.
    more = solve(right_hand_side(targets - product(weight, bias)) - eps * z)
    weight, bias = (first + second for first, second in zip((weight, bias), solution(more), strict=True))
    fitted = product(weight, bias)
    residual = relative_residual(fitted - targets, targets)
    return LeastSquares(weight, bias, fitted, jnp.sum(kept), residual, jnp.asarray(eps))
