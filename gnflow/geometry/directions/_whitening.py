"""The whitened Gram matrix B = R^T A R, which dense solvers factorise, and its diagonal blocks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...losses import AbstractOutputFactor, ScaledIdentity


def whitened_gram(
    gram: Float[Array, "size size"], factor: AbstractOutputFactor, num_outputs: int
) -> Float[Array, "size size"]:
    """B = R^T A R, (NC, NC), from A, with C = `num_outputs`."""
    if isinstance(factor, ScaledIdentity):
        return factor.scale * gram
    transpose = jax.vmap(lambda column: factor.transpose_product(column.reshape(-1, num_outputs)).reshape(-1))
    half = transpose(gram)  # the rows of (R^T A)^T = A R
    return transpose(half.T)


def whitened_blocks(
    blocks: Float[Array, "samples outputs outputs"], factor: AbstractOutputFactor
) -> Float[Array, "samples outputs outputs"]:
    """R_n^T A_nn R_n for the diagonal blocks A_nn (N, C, C); the factor is block diagonal over the samples."""
    transpose = jax.vmap(factor.transpose_product, in_axes=2, out_axes=2)
    return transpose(jnp.swapaxes(transpose(blocks), 1, 2))
