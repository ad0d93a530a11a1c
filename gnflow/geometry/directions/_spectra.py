"""The spectrum that damping rules read, as direction solvers compute it with and without a Gram matrix."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import ConfigError, stream
from ...losses import AbstractOutputFactor, ScaledIdentity
from .._tangent import AbstractTangent
from ..damping import AbstractDamping, Spectrum
from ._whitening import whitened_blocks, whitened_gram

# The largest eigenvalues of a kernel of C outputs come in clusters of C. Ten steps see beyond the first cluster.
_LANCZOS_STEPS = 10
_EXHAUSTED = 1e-12


def gram_spectrum(gram: Float[Array, "size size"], factor: AbstractOutputFactor, num_outputs: int) -> Spectrum:
    """The spectrum of a Gram matrix A in the metric H = R R^T, if no eigendecomposition is at hand.

    **Arguments:**

    - `gram`: A (NC, NC).
    - `factor`: R.
    - `num_outputs`: C.
    """
    matrix = whitened_gram(gram, factor, num_outputs)
    return Spectrum(
        smallest=lambda: jnp.linalg.eigvalsh(gram)[0],
        largest=lambda: largest_eigenvalue(lambda vector: matrix @ vector, matrix.shape[:1]),
        trace=lambda: jnp.trace(matrix),
        all=lambda: jnp.linalg.eigvalsh(matrix),
    )


def decomposed_spectrum(
    gram: Float[Array, "size size"], factor: AbstractOutputFactor, eigenvalues: Float[Array, " rank"]
) -> Spectrum:
    """The spectrum of a Gram matrix A in the metric H = R R^T, given the eigenvalues of R^T A R, ascending, without zeros."""
    zeros = jnp.zeros(gram.shape[0] - eigenvalues.shape[0])
    eigenvalues = jnp.concatenate([zeros, eigenvalues])

    def smallest() -> Float[Array, ""]:
        if isinstance(factor, ScaledIdentity):
            return eigenvalues[0] / factor.scale
        return jnp.linalg.eigvalsh(gram)[0]

    return Spectrum.of(eigenvalues, smallest)


def matrix_free_spectrum(
    tangent: AbstractTangent,
    factor: AbstractOutputFactor,
    product: Callable[[Array], Array],
    damping: AbstractDamping,
) -> Spectrum:
    """The part of the spectrum that is known without a Gram matrix: the largest eigenvalue and the trace.

    **Arguments:**

    - `tangent`: the tangent on the training inputs.
    - `factor`: R.
    - `product`: v -> R^T A R v on arrays (N, C).
    - `damping`: the rule that reads it, for messages.
    """

    def refuse() -> Float[Array, "..."]:
        raise ConfigError(
            f"{type(damping).__name__} damping reads eigenvalues of the Gram matrix beside the largest, such as the smallest "
            "eigenvalue, and ConjugateGradients does not form that matrix; use damping.LargestEigenvalue, damping.Trace, "
            "damping.Constant or a schedule, or the direction solver TruncatedEigh."
        )

    return Spectrum(
        smallest=refuse,
        largest=lambda: largest_eigenvalue(product, tangent.outputs.shape),
        # H is block diagonal over the samples, so the trace of H A needs only the diagonal blocks of A.
        trace=lambda: jnp.trace(jnp.sum(whitened_blocks(tangent.sample_blocks(), factor), axis=0)),
        all=refuse,
    )


def largest_eigenvalue(product: Callable[[Array], Array], shape: tuple[int, ...]) -> Float[Array, ""]:
    """A lower bound, by ten Lanczos steps, of the largest eigenvalue of a symmetric positive semi-definite matrix.

    The basis is orthogonalised in full. Source: Golub and Van Loan, "Matrix Computations", 4th ed., Section 10.1.

    **Arguments:**

    - `product`: the product with the matrix, on arrays of shape `shape`.
    - `shape`: their shape.
    """
    # The key is fixed, so that damping, and with it the velocity, is a function of the weights.
    start = jax.random.normal(stream(jax.random.key(0), "largest eigenvalue"), shape).reshape(-1)
    count = min(_LANCZOS_STEPS, start.size)
    empty = jnp.zeros((count, start.size))

    def step(index: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        basis, images, vector = carry
        image = product(vector.reshape(shape)).reshape(-1)
        basis, images = basis.at[index].set(vector), images.at[index].set(image)
        rest = image
        for _ in range(2):  # rounding that one pass leaves along the basis would grow from step to step
            rest = rest - basis.T @ (basis @ rest)
        norm = jnp.linalg.norm(rest)
        # If only rounding is left the space is exhausted. A zero vector then adds the eigenvalue 0, which changes nothing.
        goes_on = norm > _EXHAUSTED * jnp.linalg.norm(image)
        return basis, images, jnp.where(goes_on, rest / jnp.where(goes_on, norm, 1.0), 0.0)

    basis, images, _ = jax.lax.fori_loop(0, count, step, (empty, empty, start / jnp.linalg.norm(start)))
    small = basis @ images.T
    return jnp.maximum(jnp.linalg.eigvalsh((small + small.T) / 2)[-1], 0.0)
