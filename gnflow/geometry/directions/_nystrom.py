"""The randomised Nystrom preconditioner, from the leading modes of a sketch, for any model."""

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ..._core import ConfigError, integer_field, stream
from ...losses import AbstractOutputFactor
from .._tangent import AbstractTangent
from ._preconditioner import AbstractPreconditioner, Product

# Columns that go through the product at once, which bounds the memory beside the sketch.
_BLOCK = 16


class Nystrom(AbstractPreconditioner):
    """P^(-1) = U diag((lam_r + eps)/(lam + eps)) U^T + I - U U^T with `rank` Nystrom modes (lam, U) of B from a sketch B Omega.

    With a rank of about the number of modes above eps the condition number is a small constant (Frangella et al., Theorem
    5.1). Every velocity needs a new sketch, which costs `rank` products with B, each about a conjugate-gradient iteration. So
    it pays if it saves more iterations than its rank. Memory: two arrays (NC, rank). For networks with several outputs see
    `MeanKernel`.

    Source: Frangella, Tropp, Udell, "Randomized Nystrom preconditioning", SIAM J. Matrix Anal. Appl. 2023 (arXiv 2110.02820),
    Algorithm 2.1 and (1.3).

    **Arguments:** `rank`: the number of modes, from 1 to NC.

    **Raises:** `ConfigError` otherwise.
    """

    rank: int = integer_field("Nystrom: rank", default=50, static=True)

    def inverse(
        self, tangent: AbstractTangent, factor: AbstractOutputFactor, shift: Float[Array, ""], product: Product
    ) -> Product:
        """v -> P^(-1) v on (N, C)."""
        shape, size = tangent.outputs.shape, tangent.outputs.size
        if self.rank > size:
            raise ConfigError(
                f"Nystrom(rank={self.rank}), but there are only N C = {size} outputs; expected a rank of at most that, and far "
                "less to gain anything: with so few outputs take TruncatedEigh or Cholesky."
            )
        # The key is fixed, so that the velocity is a function of the weights.
        test = jax.random.normal(stream(jax.random.key(0), "Nystrom sketch"), (size, self.rank))
        test = jnp.linalg.qr(test)[0]
        sketch = jax.lax.map(lambda column: product(column.reshape(shape)).reshape(-1), test.T, batch_size=_BLOCK).T
        # The shift of the paper: without it rounding can make the small matrix below indefinite.
        precision = jnp.finfo(jnp.float64)
        small_shift = precision.eps * jnp.linalg.norm(sketch) + precision.tiny
        sketch = sketch + small_shift * test
        triangle = jnp.linalg.cholesky(_symmetric(test.T @ sketch))
        vectors, singular, _ = jnp.linalg.svd(
            jsl.solve_triangular(triangle, sketch.T, lower=True).T, full_matrices=False
        )
        # Modes at rounding are kept above zero, because without damping P would be singular.
        eigenvalues = jnp.maximum(singular**2 - small_shift, small_shift)
        gains = (eigenvalues[-1] + shift) / (eigenvalues + shift) - 1.0

        def inverse(vector: Array) -> Array:
            flat = vector.reshape(-1)
            return (flat + vectors @ (gains * (vectors.T @ flat))).reshape(shape)

        return inverse


def _symmetric(matrix: Float[Array, "size size"]) -> Float[Array, "size size"]:
    return (matrix + matrix.T) / 2
