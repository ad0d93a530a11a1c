"""eps of a damping rule, with those ends of the spectrum that it reads."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import stream
from ..damping import AbstractDamping

# The largest eigenvalues of a kernel of C outputs come in clusters of C; ten steps see past the first.
_LANCZOS_STEPS = 10
_EXHAUSTED = 1e-12


def damping_value(
    damping: AbstractDamping,
    time: Float[Array, ""],
    smallest: Callable[[], Float[Array, ""]],
    largest: Callable[[], Float[Array, ""]],
) -> Float[Array, ""]:
    """eps at flow time `time`.

    **Arguments:** `smallest`, `largest`: give the smallest eigenvalue of A and the largest of H A, and are called only where
    the rule reads them.
    """
    nothing = jnp.zeros(())
    return damping(
        time,
        smallest() if damping.needs_smallest_eigenvalue else nothing,
        largest() if damping.needs_largest_eigenvalue else nothing,
    )


def largest_eigenvalue(product: Callable[[Array], Array], shape: tuple[int, ...]) -> Float[Array, ""]:
    """The largest eigenvalue of a symmetric positive semi-definite matrix, from below, by ten Lanczos steps.

    The basis is orthogonalised in full. Source: Golub and Van Loan, "Matrix Computations", 4th ed., Section 10.1.

    **Arguments:** `product`: with the matrix, on arrays of shape `shape`.
    """
    start = jax.random.normal(stream(jax.random.key(0), "largest eigenvalue"), shape).reshape(-1)
    count = min(_LANCZOS_STEPS, start.size)
    empty = jnp.zeros((count, start.size))

    def step(index: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        basis, images, vector = carry
        image = product(vector.reshape(shape)).reshape(-1)
        basis, images = basis.at[index].set(vector), images.at[index].set(image)
        rest = image
        for _ in range(2):  # once leaves rounding that grows
            rest = rest - basis.T @ (basis @ rest)
        norm = jnp.linalg.norm(rest)
        # Zero where only rounding is left, the space being exhausted: such a row adds the eigenvalue 0.
        goes_on = norm > _EXHAUSTED * jnp.linalg.norm(image)
        return basis, images, jnp.where(goes_on, rest / jnp.where(goes_on, norm, 1.0), 0.0)

    basis, images, _ = jax.lax.fori_loop(0, count, step, (empty, empty, start / jnp.linalg.norm(start)))
    small = basis @ images.T
    return jnp.maximum(jnp.linalg.eigvalsh((small + small.T) / 2)[-1], 0.0)
