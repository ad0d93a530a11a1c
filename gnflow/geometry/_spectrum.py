"""Eigenvalues of Gram matrices: numerical and effective rank."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_EPSILON = float(jnp.finfo(jnp.float64).eps)


def rank_cutoff(eigenvalues: Float[Array, " size"]) -> Float[Array, ""]:
    """The value up to which an eigenvalue of a computed symmetric matrix cannot be told from zero.

    It is size * machine epsilon * largest eigenvalue: the backward error of a symmetric eigensolver (LAPACK Users' Guide,
    Section 4.7), and the rule of `numpy.linalg.matrix_rank`.

    **Arguments:** `eigenvalues`: all eigenvalues (size,), in the units of the matrix.
    """
    return eigenvalues.shape[0] * _EPSILON * jnp.max(jnp.abs(eigenvalues))


def rank_cutoff_of_squares(values: Float[Array, " rank"], size: int) -> Float[Array, ""]:
    """The same for squares of singular values, which were computed from the matrix itself: (size * epsilon * largest)^2.

    A singular value is known to `size` * machine epsilon * largest singular value (LAPACK Users' Guide, Section 4.9).

    **Arguments:**

    - `values`: the squares (r,) of all singular values.
    - `size`: the larger side of the matrix.
    """
    return (size * _EPSILON) ** 2 * jnp.max(values)


def numerical_rank(eigenvalues: Float[Array, " size"]) -> Int[Array, ""]:
    """The number of eigenvalues above `rank_cutoff`."""
    return jnp.sum(eigenvalues > rank_cutoff(eigenvalues))


def effective_rank(eigenvalues: Float[Array, " size"]) -> Float[Array, ""]:
    """The exponential of the entropy of the normalised spectrum, from 1 to `size`, dimensionless (Roy and Vetterli 2007)."""
    weights = jnp.maximum(eigenvalues, 0.0)
    share = weights / jnp.sum(weights)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1.0))))
