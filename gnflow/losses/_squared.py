"""The squared loss."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._base import AbstractLoss
from ._conjugates import AbstractConjugate
from ._factors import AbstractOutputFactor, ScaledIdentity
from ._targets import real_targets


class SquaredLoss(AbstractConjugate, AbstractLoss):
    """L(f) = 1/(2N) ||f - y||^2 (docs/theory.md, Objects), as the code of [A] (arXiv 2302.02904) normalises it.

    g = (f - y)/N and H = I/N, so mu = lambda = 1/N. The Fisher metric is H too, since exp(-l) is a normal density of unit
    variance about f.

    Targets: floating numbers, (N,) for one output or (N, C).
    """

    fisher_is_hessian: ClassVar[bool] = True
    gradient_in_hessian_image: ClassVar[bool] = True
    is_smooth: ClassVar[bool | None] = True
    has_constant_hessian: ClassVar[bool] = True
    is_squared_distance: ClassVar[bool] = True
    targets_may_be_rescaled: ClassVar[bool | None] = True

    def canonical_targets(
        self, y_train: Any, y_test: Any = None
    ) -> tuple[Float[Array, "N C"], Float[Array, "n C"] | None]:
        """(N,) becomes (N, 1).

        **Raises:** `DataError` for integer or bool targets, NaN or inf, empty arrays, more than two dimensions, or
        different numbers of columns in train and test; `PrecisionError` unless JAX is in double precision.
        """
        return real_targets(y_train, y_test, "SquaredLoss")

    def value(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, ""]:
        """1/(2N) ||f - y||^2."""
        return jnp.sum((f - y) ** 2) / (2 * f.shape[0])

    def gradient(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """(f - y)/N."""
        return (f - y) / f.shape[0]

    def hessian_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """v/N."""
        return v / f.shape[0]

    def hessian_pinv_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """N v."""
        return v * f.shape[0]

    def hessian_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """`ScaledIdentity(1/N)`."""
        return ScaledIdentity(1 / f.shape[0])

    def fisher_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """`ScaledIdentity(1/N)`, the Hessian's."""
        return self.hessian_factor(f, y)

    def strong_convexity(self, num_samples: int) -> float:
        """1/N."""
        return 1 / num_samples

    def smoothness(self, num_samples: int) -> float:
        """1/N."""
        return 1 / num_samples

    def minimum(self, y: Float[Array, "N C"]) -> Float[Array, ""]:
        """0, at f = y."""
        return jnp.zeros(())

    def conjugate(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, " N"]:
        """||alpha||^2/2 + <alpha, y> for each sample."""
        return jnp.sum(alpha * (alpha / 2 + y), axis=1)

    def conjugate_gradient(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """y + alpha."""
        return y + alpha

    def in_conjugate_domain(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, " N"]:
        """Everywhere."""
        return jnp.ones(alpha.shape[0], dtype=bool)
