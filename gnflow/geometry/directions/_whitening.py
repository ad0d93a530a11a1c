"""The whitened Gram matrix B = R^T A R that the dense solvers factorise."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...losses import AbstractOutputFactor, ScaledIdentity


def whitened_gram(
    gram: Float[Array, "size size"], factor: AbstractOutputFactor, num_outputs: int
) -> Float[Array, "size size"]:
    """B = R^T A R, (NC, NC), for A given and C = `num_outputs`."""
    if isinstance(factor, ScaledIdentity):
        return factor.scale * gram
    transpose = jax.vmap(lambda column: factor.transpose_product(column.reshape(-1, num_outputs)).reshape(-1))
    half = transpose(gram)  # the rows of (R^T A)^T = A R
    return transpose(half.T)


def smallest_gram_eigenvalue(
    gram: Float[Array, "size size"], factor: AbstractOutputFactor, whitened_eigenvalues: Float[Array, " size"] | None
) -> Float[Array, ""]:
    """sigma_min of A, not negative; from the eigenvalues of B = c A where H = c I and they are known, else computed."""
    if isinstance(factor, ScaledIdentity) and whitened_eigenvalues is not None:
        smallest = whitened_eigenvalues[0] / factor.scale
    else:
        smallest = jnp.linalg.eigvalsh(gram)[0]
    return jnp.maximum(smallest, 0.0)
