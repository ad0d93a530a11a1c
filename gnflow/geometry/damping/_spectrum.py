"""The eigenvalues that damping rules read, computed only if they are read."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import ConfigError

_Number = Callable[[], Float[Array, ""]]
_Numbers = Callable[[], Float[Array, " size"]]


class Spectrum:
    """The eigenvalues that a damping rule may read: those of H A, to which eps is added, and the smallest of A, as in [A].

    Within one trace each property is computed when it is first read. The direction solver decides how: from an
    eigendecomposition that it has, by Lanczos steps, or not at all, with a `ConfigError` that names the remedy. For the
    identity metric H A is A.

    **Arguments:** `smallest`, `largest`, `trace`, `all`, `target_energies`: functions without arguments that compute the
    properties. Values below zero are rounding and become zero. `target_energies` is None where they are not known.
    """

    def __init__(
        self,
        smallest: _Number,
        largest: _Number,
        trace: _Number,
        all: _Numbers,
        target_energies: _Numbers | None = None,
    ):
        self._smallest, self._largest, self._trace, self._all = smallest, largest, trace, all
        self._target_energies = target_energies

    @classmethod
    def of(
        cls,
        eigenvalues: Float[Array, " size"],
        smallest: _Number | None = None,
        target_energies: _Numbers | None = None,
    ) -> "Spectrum":
        """The spectrum for all eigenvalues of A, ascending, in the identity metric."""
        return cls(
            smallest=(lambda: eigenvalues[0]) if smallest is None else smallest,
            largest=lambda: eigenvalues[-1],
            trace=lambda: jnp.sum(eigenvalues),
            all=lambda: eigenvalues,
            target_energies=target_energies,
        )

    @functools.cached_property
    def smallest(self) -> Float[Array, ""]:
        """sigma_min, the smallest eigenvalue of the Gram matrix A, in units of A."""
        return jnp.maximum(self._smallest(), 0.0)

    @functools.cached_property
    def largest(self) -> Float[Array, ""]:
        """The largest eigenvalue of H A; a lower bound if the solver has no decomposition."""
        return jnp.maximum(self._largest(), 0.0)

    @functools.cached_property
    def trace(self) -> Float[Array, ""]:
        """The trace of H A, the sum of its eigenvalues."""
        return jnp.maximum(self._trace(), 0.0)

    @functools.cached_property
    def all(self) -> Float[Array, " size"]:
        """All NC eigenvalues of H A, ascending."""
        return jnp.maximum(self._all(), 0.0)

    @functools.cached_property
    def target_energies(self) -> Float[Array, " size"]:
        """The squared norm of what is asked of each mode, in the order of `all`: |v_i^T T|^2 of the right-hand sides T.

        **Raises:** `ConfigError` if only the eigenvalues are known, as in all flows but `ReversibleGaussNewtonFlow`.
        """
        if self._target_energies is None:
            raise ConfigError(
                "PredictedDecrease damping, and any rule that reads spectrum.target_energies, is for the half-blocks of "
                "ReversibleGaussNewtonFlow; this flow gives its damping rule the eigenvalues alone. Take "
                "damping.LargestEigenvalue, damping.Trace or damping.Constant."
            )
        return jnp.maximum(self._target_energies(), 0.0)
