"""What a damping rule may read of the Gram matrix, computed only if it does."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

_Number = Callable[[], Float[Array, ""]]


class Spectrum:
    """The eigenvalues that a damping rule may read: of H A, to which eps is added, and the smallest of A, which [A] damps by.

    Each property is computed when it is first asked for, within one trace. Whoever solves for the direction says how: from an
    eigendecomposition that it has, by Lanczos steps, or not at all, with a `ConfigError` that names the remedy. For the
    identity metric H A is A.

    **Arguments:** functions without arguments, one for each property; nothing may be negative but for rounding, which is cut.
    """

    def __init__(self, smallest: _Number, largest: _Number, trace: _Number, all: Callable[[], Float[Array, " size"]]):
        self._smallest, self._largest, self._trace, self._all = smallest, largest, trace, all

    @classmethod
    def of(cls, eigenvalues: Float[Array, " size"]) -> "Spectrum":
        """Of all eigenvalues of A, ascending, in the identity metric."""
        return cls(
            smallest=lambda: eigenvalues[0],
            largest=lambda: eigenvalues[-1],
            trace=lambda: jnp.sum(eigenvalues),
            all=lambda: eigenvalues,
        )

    @functools.cached_property
    def smallest(self) -> Float[Array, ""]:
        """sigma_min, the smallest eigenvalue of the Gram matrix A, in units of A."""
        return jnp.maximum(self._smallest(), 0.0)

    @functools.cached_property
    def largest(self) -> Float[Array, ""]:
        """The largest eigenvalue of H A; from below where no decomposition is at hand."""
        return jnp.maximum(self._largest(), 0.0)

    @functools.cached_property
    def trace(self) -> Float[Array, ""]:
        """The trace of H A, the sum of its eigenvalues."""
        return jnp.maximum(self._trace(), 0.0)

    @functools.cached_property
    def all(self) -> Float[Array, " size"]:
        """All NC eigenvalues of H A, ascending."""
        return jnp.maximum(self._all(), 0.0)
