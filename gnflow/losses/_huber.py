"""Huber's loss."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core import number_field
from ._base import AbstractLoss
from ._conjugates import AbstractConjugate, rounding, where_in_domain
from ._factors import AbstractOutputFactor, DiagonalFactor, ScaledIdentity
from ._targets import real_targets


class HuberLoss(AbstractConjugate, AbstractLoss):
    """l(r) = r^2/2 for |r| <= delta and delta (|r| - delta/2) beyond, r = f - y; sum over outputs, mean over samples.

    Source: Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35 (1964), with k = delta.
    Convex and 1/N-smooth, not strongly convex. Gradient clip(r, -delta, delta)/N. Hessian 1/N where |r| <= delta, 0
    beyond.

    **The two metrics differ.** Outside the quadratic zone the Hessian is zero and the gradient is not in its image. For the
    outputs there a Gauss-Newton direction in the Hessian metric with damping eps > 0 is the gradient divided by eps, as far as
    it leaves the outputs inside the zone alone; this is fast for a small eps. Without damping it does not move the outputs
    outside towards their targets, however far they are, and may move them away (docs/theory.md, Singular metrics). The Fisher
    and identity metrics treat all outputs alike.

    The Fisher metric is that of the density exp(-l(r))/Z. With psi = l', integration by parts gives
    E[psi^2] = (1/Z) int psi (psi e^{-l}) dr = -(1/Z) int psi (e^{-l})' dr = E[psi'] (the boundary terms vanish, psi is
    bounded and Lipschitz), and psi' is 1 inside and 0 outside, so the metric is (c/N) I with

        c = P(|r| < delta) = a/(a + b),   a = sqrt(2 pi) erf(delta/sqrt 2),   b = (2/delta) exp(-delta^2/2),

    where a and b are the masses of exp(-l) inside and outside. delta -> infinity gives the squared loss, c = 1.

    Targets: floating numbers, (N,) for one output or (N, C).

    **Arguments:** `delta`: the |r| at which the loss turns from quadratic to linear, in the units of the targets; finite, > 0.

    **Raises:** `ConfigError` for another `delta`.
    """

    fisher_is_hessian: ClassVar[bool] = False
    gradient_in_hessian_image: ClassVar[bool] = False
    is_smooth: ClassVar[bool | None] = False  # its Hessian jumps where |r| = delta
    targets_may_be_rescaled: ClassVar[bool | None] = True

    delta: float = number_field(
        "HuberLoss: delta", default=1.0, above=0.0, remedy="For an infinite one use SquaredLoss()."
    )

    def canonical_targets(
        self, y_train: Any, y_test: Any = None
    ) -> tuple[Float[Array, "N C"], Float[Array, "n C"] | None]:
        """(N,) becomes (N, 1).

        **Raises:** `DataError` for integer or bool targets, NaN or inf, empty arrays, more than two dimensions, or
        different numbers of columns in train and test; `PrecisionError` unless JAX is in double precision.
        """
        return real_targets(y_train, y_test, "HuberLoss")

    def value(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, ""]:
        """(1/N) sum of l(f - y)."""
        residual = f - y
        # Both branches in one formula, so that a large residual is never squared.
        clipped = self._clipped(residual)
        return jnp.sum(clipped * (residual - clipped / 2)) / f.shape[0]

    def gradient(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """clip(f - y, -delta, delta)/N."""
        return self._clipped(f - y) / f.shape[0]

    def hessian_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """v/N where |f - y| <= delta, 0 beyond."""
        return self._inside(f, y) * v / f.shape[0]

    def hessian_pinv_product(
        self, f: Float[Array, "N C"], y: Float[Array, "N C"], v: Float[Array, "N C"]
    ) -> Float[Array, "N C"]:
        """N v where |f - y| <= delta, 0 beyond."""
        return self._inside(f, y) * v * f.shape[0]

    def hessian_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """`DiagonalFactor`: 1/sqrt(N) where |f - y| <= delta, 0 beyond."""
        return DiagonalFactor(self._inside(f, y) / math.sqrt(f.shape[0]))

    def fisher_factor(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> AbstractOutputFactor:
        """`ScaledIdentity(c/N)`, c = P(|r| < delta) (derived on the class)."""
        inside = math.sqrt(2 * math.pi) * jax.scipy.special.erf(jnp.asarray(self.delta / math.sqrt(2)))
        outside = 2 / self.delta * jnp.exp(-(self.delta**2) / 2)
        return ScaledIdentity(inside / (inside + outside) / f.shape[0])

    def strong_convexity(self, num_samples: int) -> float:
        """0: the loss is linear for large residuals."""
        return 0.0

    def smoothness(self, num_samples: int) -> float:
        """1/N."""
        return 1 / num_samples

    def minimum(self, y: Float[Array, "N C"]) -> Float[Array, ""]:
        """0, at f = y."""
        return jnp.zeros(())

    def conjugate(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, " N"]:
        """Sum over outputs of alpha^2/2 + alpha y; infinite unless |alpha| <= delta in every output."""
        values = jnp.sum(alpha * (alpha / 2 + y), axis=1)
        return where_in_domain(self.in_conjugate_domain(alpha, y), values)

    def conjugate_gradient(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """y + alpha. At |alpha| = delta it is the nearest of many: all outputs beyond have this gradient."""
        return jnp.where(self.in_conjugate_domain(alpha, y)[:, None], y + alpha, jnp.nan)

    def in_conjugate_domain(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, " N"]:
        """|alpha| <= delta in every output."""
        return jnp.all(jnp.abs(alpha) <= self.delta * (1 + rounding(alpha)), axis=1)

    def _clipped(self, residual: Float[Array, "N C"]) -> Float[Array, "N C"]:
        return jnp.clip(residual, -self.delta, self.delta)

    def _inside(self, f: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        return (jnp.abs(f - y) <= self.delta).astype(f.dtype)
