"""The range of the Jacobian, as far as rounding in a Gram matrix resolves it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_subtract
from ._spectrum import rank_cutoff
from ._tangent import AbstractTangent


class ResolvedRange(eqx.Module):
    """The span of the eigenvectors of A = J J^T with eigenvalues above `rank_cutoff`: the changes of outputs to first order.

    **Attributes:**

    - `eigenvalues`: all eigenvalues of A (NC,), ascending.
    - `vectors`: its eigenvectors (NC, NC); those at and below the cut-off are set to zero.
    """

    eigenvalues: Float[Array, " rows"]
    vectors: Float[Array, "rows rows"]

    @classmethod
    def of(cls, gram: Float[Array, "rows rows"]) -> "ResolvedRange":
        """The resolved range for a Gram matrix A (NC, NC)."""
        eigenvalues, vectors = jnp.linalg.eigh(gram)
        return cls(eigenvalues, jnp.where(eigenvalues > rank_cutoff(eigenvalues), vectors, 0.0))

    def project(self, outputs: Float[Array, "samples outputs"]) -> Float[Array, "samples outputs"]:
        """P a, the orthogonal projection of outputs (N, C)."""
        return (self.vectors @ (self.vectors.T @ outputs.reshape(-1))).reshape(outputs.shape)

    def beyond(self, displacement: PyTree, tangent: AbstractTangent) -> PyTree:
        """d - J^T A_k^+ J d: the part of a displacement of the weights that no resolved mode sees."""
        seen = self.vectors.T @ tangent.jvp(displacement).reshape(-1)
        resolved = self.vectors @ (seen / jnp.where(self.eigenvalues > 0, self.eigenvalues, 1.0))
        return tree_subtract(displacement, tangent.vjp(resolved.reshape(tangent.outputs.shape)))
