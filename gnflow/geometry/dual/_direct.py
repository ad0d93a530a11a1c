"""A Cholesky factorisation for (I + gamma H A) a = g."""

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float, Int

from ...losses import AbstractOutputFactor
from .._spectrum import numerical_rank
from ..directions import whitened_gram
from ._conjugate_gradients import Solution
from ._products import GramProducts


def direct_solution(
    product: GramProducts,
    factor: AbstractOutputFactor,
    gradient: Float[Array, "samples outputs"],
    gamma: Float[Array, ""],
) -> tuple[Solution, Int[Array, ""]]:
    """z by a Cholesky factorisation of I + gamma R^T A R, and the number of its pivots above the rank cut-off.

    **Arguments:**

    - `product`: products with A, which must be dense.
    - `factor`: R.
    - `gradient`: g (N, C).
    - `gamma`: > 0.
    """
    assert product.gram is not None
    whitened = whitened_gram(product.gram, factor, gradient.shape[1])
    matrix = jnp.eye(whitened.shape[0]) + gamma * whitened
    pulled = product(gradient)
    right = -gamma * factor.transpose_product(pulled)
    triangle = jnp.linalg.cholesky(matrix)
    solved = jsl.cho_solve((triangle, True), right.reshape(-1))
    residual = right - (matrix @ solved).reshape(right.shape)
    rank = numerical_rank(jnp.nan_to_num(jnp.diagonal(triangle) ** 2, nan=0.0))
    whitened_solution = solved.reshape(right.shape)
    slope = gamma * jnp.sum(gradient * pulled) - jnp.sum(right * whitened_solution)
    return Solution(whitened_solution, residual, jnp.linalg.norm(right), slope, jnp.zeros((), dtype=int)), rank
