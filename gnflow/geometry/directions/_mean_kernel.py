"""A preconditioner for several outputs: one kernel of the samples for all of them."""

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ...losses import AbstractOutputFactor
from .._tangent import AbstractTangent
from ._preconditioner import AbstractPreconditioner, Product
from ._whitening import whitened_blocks


class MeanKernel(AbstractPreconditioner):
    """P^(-1) = S (K^(-1) kron I) S + Q: a Cholesky factorisation of size N in place of one of size NC.

    B_nn (C, C) is the block of sample n with itself, and S_n = (B_nn + eps I)^(-1/2) on those of its eigenvectors whose
    eigenvalue is above eps; on the others, which damping decides and the samples do not share, Q_n = (B_nn + eps I)^(-1). So
    S (B + eps) S has projections in its diagonal (block Jacobi scaling), and K (N, N) is the mean of its blocks over the r_n
    outputs that sample n has in them, tr [S (B + eps) S]_nm / sqrt(r_n r_m).

    P is exact for one output, and where the outputs share a kernel and the metric is the identity: the NTK of a wide network
    is a kernel times I (Jacot et al. 2018, Theorem 1). That one kernel of the samples approximates all of A at finite width:
    Mohamadi, Bae and Sutherland, "A fast, well-founded approximation to the empirical neural tangent kernel", ICML 2023
    (arXiv 2206.12543). S and Q take the metric and the spread of the samples into it: docs/theory.md, Preconditioners.

    Cost: of the order of N^2 C width operations a layer, and N^3/3; memory: a few arrays (N, N). Closed forms for `MLP`,
    `MeanFieldNetwork`, `RandomFeatures` and `Linearised` of these; of other models the blocks are taken from the whole Gram
    matrix, (NC)^2: take `Nystrom` there.
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
        # Without damping a block may be singular (softmax): what it does not see is left as it is.
        gains = 1.0 / jnp.where(damped > rounding, damped, 1.0)
        scale = _from_spectrum(jnp.where(seen, jnp.sqrt(gains), 0.0), vectors)  # S
        rest = _from_spectrum(jnp.where(seen, 0.0, gains), vectors)  # Q

        columns = jax.vmap(factor.product, in_axes=2)(scale)  # R S e_c for each c
        count = jnp.maximum(jnp.sum(seen, axis=1), 1)
        root = jnp.sqrt(count)
        kernel = tangent.projected_gram(columns) / (root[:, None] * root[None, :])
        # What eps adds; 1 for a sample of which nothing is seen; and the rounding of a kernel that is singular without damping.
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
