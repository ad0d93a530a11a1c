"""The range of the Jacobian as far as a Gram matrix resolves it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_subtract
from ._spectrum import rank_cutoff
from ._tangent import AbstractTangent


class ResolvedRange(eqx.Module):
    """What outputs can do to first order: the span of the eigenvectors of A = J J^T above `rank_cutoff`.

    **Attributes:** `eigenvalues` (NC,): all of A, ascending; `vectors` (NC, NC): its eigenvectors, those at and below the
    cut-off zero.
    """

    eigenvalues: Float[Array, " rows"]
    vectors: Float[Array, "rows rows"]

    @classmethod
    def of(cls, gram: Float[Array, "rows rows"]) -> "ResolvedRange":
        """Of a Gram matrix A (NC, NC)."""
        eigenvalues, vectors = jnp.linalg.eigh(gram)
        return cls(eigenvalues, jnp.where(eigenvalues > rank_cutoff(eigenvalues), vectors, 0.0))

    def project(self, outputs: Float[Array, "samples outputs"]) -> Float[Array, "samples outputs"]:
        """P a, the orthogonal projection of outputs (N, C)."""
        return (self.vectors @ (self.vectors.T @ outputs.reshape(-1))).reshape(outputs.shape)

    def beyond(self, displacement: PyTree, tangent: AbstractTangent) -> PyTree:
        """d - J^T A_k^+ J d: what of a displacement of the weights no resolved mode sees."""
        seen = self.vectors.T @ tangent.jvp(displacement).reshape(-1)
        resolved = self.vectors @ (seen / jnp.where(self.eigenvalues > 0, self.eigenvalues, 1.0))
        return tree_subtract(displacement, tangent.vjp(resolved.reshape(tangent.outputs.shape)))
