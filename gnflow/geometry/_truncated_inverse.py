"""The pseudo-inverse of a symmetric matrix whose small eigenvalues count as zero."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class TruncatedInverse(eqx.Module):
    """The eigenvalues and eigenvectors of a symmetric positive semi-definite matrix, for solves with several cut-offs.

    **Attributes:**

    - `eigenvalues`: ascending, (size,).
    - `modes`: the eigenvectors, in columns (size, size).
    """

    eigenvalues: Float[Array, " size"]
    modes: Float[Array, "size size"]

    @classmethod
    def of(cls, matrix: Float[Array, "size size"]) -> "TruncatedInverse":
        """The decomposition of `matrix`."""
        return cls(*jnp.linalg.eigh(matrix))

    def kept(self, cutoff: float | Float[Array, ""]) -> Array:
        """Which eigenvalues are above `cutoff` times the largest, (size,)."""
        return self.eigenvalues > cutoff * self.eigenvalues[-1]

    def rank(self, cutoff: float | Float[Array, ""]) -> Int[Array, ""]:
        """The number of these eigenvalues."""
        return jnp.sum(self.kept(cutoff))

    def solve(
        self, right: Float[Array, "size columns"], cutoff: float | Float[Array, ""]
    ) -> Float[Array, "size columns"]:
        """The minimum-norm least-squares solution, with eigenvalues up to `cutoff` times the largest counted as zero."""
        kept = self.kept(cutoff)
        divided = (self.modes.T @ right) / jnp.where(kept, self.eigenvalues, 1.0)[:, None]
        return self.modes @ jnp.where(kept[:, None], divided, 0.0)
