"""A preconditioner for several outputs, from one kernel of the samples for all of them."""

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ...losses import AbstractOutputFactor
from .._tangent import AbstractTangent
from ._preconditioner import AbstractPreconditioner, Product
from ._whitening import whitened_blocks


class MeanKernel(AbstractPreconditioner):
    """P^(-1) = S (K^(-1) kron I) S + Q, which takes a Cholesky factorisation of size N instead of NC.

    B_nn (C, C) is the block of sample n with itself. On its eigenvectors with eigenvalues above eps
    S_n = (B_nn + eps I)^(-1/2). On the others, where damping dominates and which the samples do not share,
    Q_n = (B_nn + eps I)^(-1). So the diagonal blocks of S (B + eps) S are projections (block Jacobi scaling). K (N, N) is the
    mean of its blocks over the r_n outputs that sample n has in them, tr [S (B + eps) S]_nm / sqrt(r_n r_m).

    P is exact for one output, and if the outputs share a kernel and the metric is the identity: the NTK of a wide network is
    a kernel times I (Jacot et al. 2018, Theorem 1). At finite width one kernel of the samples approximates all of A: Mohamadi,
    Bae and Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel", ICML 2023
    (arXiv 2206.12543). S and Q account for the metric and the spread of the samples: docs/theory.md, Preconditioners.

    Cost: about N^2 C width operations per layer, and N^3/3; memory: a few arrays (N, N). This needs closed forms, which `MLP`,
    `MeanFieldNetwork`, `RandomFeatures`, `ReversibleMLP` and `Linearised` of these have. For other models the blocks are taken
    from the whole Gram matrix, (NC)^2; use `Nystrom` for them.
    """

    def inverse(
        self, tangent: AbstractTangent, factor: AbstractOutputFactor, shift: Float[Array, ""], product: Product
    ) -> Product:
        """v -> P^(-1) v on (N, C)."""
        samples, outputs = tangent.outputs.shape
        blocks = whitened_blocks(tangent.sample_blocks(), factor)
        eigenvalues, vectors = jnp.linalg.eigh(blocks)
        damped = eigenvalues + shift
        rounding = outputs * jnp.finfo(jnp.float64).eps * eigenvalues[:, -1:]
        seen = eigenvalues > jnp.maximum(shift, rounding)
        # Without damping a block may be singular (softmax). Directions that it does not see are left unchanged.
        gains = 1.0 / jnp.where(damped > rounding, damped, 1.0)
        scale = _from_spectrum(jnp.where(seen, jnp.sqrt(gains), 0.0), vectors)  # S
        rest = _from_spectrum(jnp.where(seen, 0.0, gains), vectors)  # Q

        columns = jax.vmap(factor.product, in_axes=2)(scale)  # R S e_c for each c
        count = jnp.maximum(jnp.sum(seen, axis=1), 1)
        root = jnp.sqrt(count)
        kernel = tangent.projected_gram(columns) / (root[:, None] * root[None, :])
        # The diagonal gets the share of eps; 1 for a sample of which nothing is seen; and at least the rounding of the kernel,
        # which may be singular without damping.
        added = jnp.where(jnp.any(seen, axis=1), shift * jnp.sum(scale**2, axis=(1, 2)) / count, 1.0)
        added = jnp.maximum(added, samples * jnp.finfo(jnp.float64).eps)
        triangle = jnp.linalg.cholesky(kernel + jnp.diag(added))

        def inverse(vector: Array) -> Array:
            solved = jsl.cho_solve((triangle, True), jnp.einsum("ncd,nd->nc", scale, vector))
            return jnp.einsum("ncd,nd->nc", scale, solved) + jnp.einsum("ncd,nd->nc", rest, vector)

        return inverse


def _from_spectrum(
    eigenvalues: Float[Array, "samples outputs"], vectors: Float[Array, "samples outputs outputs"]
) -> Float[Array, "samples outputs outputs"]:
    """V diag(eigenvalues) V^T, sample by sample."""
    return jnp.einsum("ncr,nr,ndr->ncd", vectors, eigenvalues, vectors)
