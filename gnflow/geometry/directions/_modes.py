"""Eigenpairs of the whitened Gram matrix: all of them, or the leading ones if it is too large to form."""

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import integer_field, stream
from ...losses import AbstractOutputFactor
from .._row_products import row_products
from .._spectrum import rank_cutoff, rank_cutoff_of_squares
from .._tangent import AbstractTangent
from ._matrix_power import kept_modes
from ._whitening import whitened_gram

# Columns that go through J^T and J at once, which bounds the memory beside the result.
_BLOCK = 16

# How many times as many outputs as weights make the decomposition of J faster than that of A (docs/residuals_study.md, What a
# velocity costs).
_THIN = 3


class Modes(eqx.Module):
    """Eigenpairs of B = R^T A R, where H = R R^T is an output metric.

    **Attributes:**

    - `eigenvalues`: lam (r,), ascending. Of "all modes" those that are not among them have the eigenvalue 0.
    - `eigenvectors`: Q (NC, r), orthonormal. Q^T B Q = diag(eigenvalues) to rounding, also if they are approximations.
    - `gram`: A (NC, NC), or None if it was not formed.
    - `matrix`: B (NC, NC), or None if it was not formed.
    - `relative_residual`: the largest ||B q - lam q|| over the largest eigenvalue; 0 if all modes are there, which are
      exact to rounding.
    - `left_out`: an estimate of the largest eigenvalue that is left out; 0 if all modes are there.
    - `cutoff`: the value up to which an eigenvalue cannot be told from zero. Singular values of J resolve far smaller ones
      than an eigendecomposition of B.
    - `right_vectors`: V (P, r) with R^T J = Q diag(sqrt(lam)) V^T, or None if J was not decomposed.
    """

    eigenvalues: Float[Array, " rank"]
    eigenvectors: Float[Array, "size rank"]
    gram: Float[Array, "size size"] | None
    matrix: Float[Array, "size size"] | None
    relative_residual: Float[Array, ""]
    left_out: Float[Array, ""]
    cutoff: Float[Array, ""]
    right_vectors: Float[Array, "weights rank"] | None = None

    @property
    def rank(self) -> Int[Array, ""]:
        """The number of eigenvalues above the cut-off."""
        return jnp.sum(self.eigenvalues > self.cutoff)

    def kept(self, shift: Float[Array, ""]) -> Bool[Array, " rank"]:
        """Which modes can be divided by: those with lam + eps above the cut-off."""
        return kept_modes(self.eigenvalues, shift, self.cutoff)

    def pull(
        self,
        tangent: AbstractTangent,
        coefficients: Float[Array, "samples outputs"],
        amplitudes: Float[Array, " rank"],
    ) -> PyTree | None:
        """J^T a for a = R Q z, as V diag(sqrt(lam)) z; None without V.

        With large coefficients of small modes J^T a cancels, and what rounding leaves of it lies in the largest modes: a
        singular value of 1e-6 of the largest costs six digits more than it has to. The derivative is that of J^T a.

        **Arguments:**

        - `tangent`: the tangent.
        - `coefficients`: a (N, C).
        - `amplitudes`: z (r,).
        """
        if self.right_vectors is None:
            return None
        flat, unravel = jax.flatten_util.ravel_pytree(tangent.vjp(coefficients))
        exact = self.right_vectors @ (jnp.sqrt(self.eigenvalues) * amplitudes)
        return unravel(flat + jax.lax.stop_gradient(exact - flat))

    def unneeded(self, right: Float[Array, " size"], shift: Float[Array, ""]) -> Float[Array, " size"]:
        """The part of (B + eps)^(-1) b in modes of eigenvalue 0 that are not among these, (NC,): it moves no weights.

        It is 0 if such modes are cut off, because eps is 0 or rounding. Then their part of b is not reached.
        """
        if self.eigenvectors.shape[1] == self.eigenvectors.shape[0]:
            return jnp.zeros_like(right)
        outside = right - self.eigenvectors @ (self.eigenvectors.T @ right)
        reached = shift > self.cutoff
        return jnp.where(reached, outside / jnp.where(reached, shift, 1.0), 0.0)


class Decomposition(eqx.Module):
    """How modes are computed: all of them, or the leading ones.

    Up to `dense_limit` outputs NC all modes come from a dense eigendecomposition. Beyond, the `rank` leading ones come from
    randomised subspace iteration with a Rayleigh-Ritz step, in memory O(NC rank). Source: Halko, Martinsson, Tropp, "Finding
    structure with randomness", SIAM Review 2011, Algorithms 4.4 and 5.3.

    **Arguments:**

    - `dense_limit`: the largest NC with a dense eigendecomposition, at least 0.
    - `rank`: the number of leading modes, at least 1.
    - `power`: the number of subspace iterations beyond the first, at least 0. Each takes rank + 10 products with B.

    **Raises:** `ConfigError` for other numbers.
    """

    dense_limit: int = integer_field("Decomposition: dense_limit", default=4096, static=True, least=0)
    rank: int = integer_field("Decomposition: rank", default=512, static=True)
    power: int = integer_field("Decomposition: power", default=1, static=True, least=0)

    def is_dense(self, num_outputs: int) -> bool:
        """Whether all modes of NC = `num_outputs` outputs are computed."""
        return num_outputs <= max(self.dense_limit, self.rank)

    def modes(self, tangent: AbstractTangent, factor: AbstractOutputFactor) -> Modes:
        """The modes of R^T J J^T R for the tangent's J and the factor R."""
        if self.is_dense(tangent.outputs.size):
            return dense_modes(tangent, factor)
        return self._leading_modes(tangent, factor)

    def _leading_modes(self, tangent: AbstractTangent, factor: AbstractOutputFactor) -> Modes:
        shape = tangent.outputs.shape

        def product(column: Array) -> Array:
            pulled = tangent.vjp(factor.product(column.reshape(shape)))
            return factor.transpose_product(tangent.jvp(pulled)).reshape(-1)

        def products(columns: Array) -> Array:
            return jax.lax.map(product, columns.T, batch_size=_BLOCK).T

        # Some columns more than modes: the last directions of the subspace converge slowly and are cut off (Halko et al.).
        oversampled = min(self.rank + 10, tangent.outputs.size)
        # The key is fixed, so that the linearisation is a function of the weights.
        block = jax.random.normal(
            stream(jax.random.key(0), "randomised subspace iteration"), (shape[0] * shape[1], oversampled)
        )
        for _ in range(self.power + 1):
            # Without orthogonalisation all columns would turn towards the leading eigenvector.
            block = jnp.linalg.qr(products(block))[0]
        image = products(block)
        small = block.T @ image
        eigenvalues, rotation = jnp.linalg.eigh((small + small.T) / 2)
        kept = slice(oversampled - self.rank, None)
        vectors = block @ rotation[:, kept]
        residuals = image @ rotation[:, kept] - vectors * eigenvalues[None, kept]
        largest = jnp.maximum(eigenvalues[-1], jnp.finfo(jnp.float64).tiny)
        dropped = eigenvalues[: oversampled - self.rank]
        return Modes(
            eigenvalues=eigenvalues[kept],
            eigenvectors=vectors,
            gram=None,
            matrix=None,
            relative_residual=jnp.max(jnp.linalg.norm(residuals, axis=0)) / largest,
            left_out=jnp.maximum(dropped[-1], 0.0) if dropped.size else jnp.zeros(()),
            cutoff=rank_cutoff(eigenvalues[kept]),
        )


def dense_modes(tangent: AbstractTangent, factor: AbstractOutputFactor) -> Modes:
    """All modes: by one symmetric eigendecomposition of size NC, or those of J's range by a singular value decomposition.

    The second has r = P modes. It is taken if J is known as a matrix with a third as many columns as rows, or fewer: all other
    modes of B have the eigenvalue 0 and move no weights. J is not squared, so eigenvalues are resolved to
    eps sqrt(lam lam_max) instead of eps lam_max (eps: machine epsilon).
    """
    shape, zero = tangent.outputs.shape, jnp.zeros(())
    width = tangent.jacobian_width
    if width is None or _THIN * width > tangent.outputs.size:
        gram = tangent.gram()
        matrix = whitened_gram(gram, factor, shape[1])
        eigenvalues, eigenvectors = jnp.linalg.eigh(matrix)
        cutoff = rank_cutoff(eigenvalues)
        return Modes(eigenvalues, eigenvectors, gram, matrix, relative_residual=zero, left_out=zero, cutoff=cutoff)
    jacobian = tangent.jacobian()
    gram = row_products(jacobian, jacobian)
    matrix = whitened_gram(gram, factor, shape[1])
    on_columns = jax.vmap(lambda column: factor.transpose_product(column.reshape(shape)).reshape(-1), 1, 1)
    vectors, values, right = jnp.linalg.svd(on_columns(jacobian), full_matrices=False)
    eigenvalues = values[::-1] ** 2
    cutoff = rank_cutoff_of_squares(eigenvalues, shape[0] * shape[1])
    return Modes(
        eigenvalues,
        vectors[:, ::-1],
        gram,
        matrix,
        relative_residual=zero,
        left_out=zero,
        cutoff=cutoff,
        right_vectors=right[::-1].T,
    )
