"""The law of a flow as a scalar function: what it makes of each mode of the Gram matrix."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..geometry import AbstractOutputMetric, IdentityMetric
from ..geometry.damping import AbstractDamping, Constant
from ..geometry.directions import kept_modes

_TINY = float(jnp.finfo(jnp.float64).tiny)


class AbstractGain(eqx.Module):
    """k of a flow w' = -J^T R k(B) h, where B = R^T A R is the Gram matrix in the output metric H = R R^T, and g = R h.

    Along an eigenvector of B with the eigenvalue lam the gradient is multiplied by k(lam) >= 0, which must not increase with
    eps. A flow that has a gain (`AbstractFlow.gain`) gets its certificates from it: nobody asks what class it is.

    **Attributes:** `metric`: H; `damping`: the rule for eps, on which k may depend; `is_truncated`: whether modes with
    lam + eps at the rounding of B are left out; `is_increasing`: whether lam k(lam) does not decrease in
    lam, with eps fixed or in proportion to lam, so that bounds of A's eigenvalues bound the rates of decay. False, which is
    always safe, for a gain that does not say.
    """

    is_truncated: ClassVar[bool] = True
    is_increasing: ClassVar[bool] = False

    metric: eqx.AbstractVar[AbstractOutputMetric]
    damping: eqx.AbstractVar[AbstractDamping]

    @property
    def inverts(self) -> bool:
        """Whether k(lam) = 1/(lam + eps): without damping the flow of a squared loss has one rate for all modes. False for a
        gain that does not say."""
        return False

    @abc.abstractmethod
    def value(self, eigenvalues: Float[Array, "..."], damping: Float[Array, ""] | float) -> Float[Array, "..."]:
        """k(lam) for lam > 0, at eps = `damping`."""

    @property
    def constant(self) -> float | Float[Array, ""] | None:
        """k where it is the same for all modes at all times; None for a gain that does not say."""
        return None

    def speed(self, smallest: float, largest: float, scale: float) -> float:
        """A bound of ||w'||/||g|| for H = `scale` I, where the singular values of J lie between `smallest` > 0 and `largest`:
        of s k(scale s^2). Infinite for a gain that does not say."""
        return math.inf

    def __call__(self, eigenvalues: Float[Array, " size"], damping: Float[Array, ""] | float) -> Float[Array, " size"]:
        """k of all eigenvalues of one matrix B, ascending, at 0 its limit; 0 for modes that are left out; nan for a damping
        that is nan."""
        kept = kept_modes(eigenvalues, jnp.asarray(damping)) if self.is_truncated else jnp.asarray(True)
        values = self.value(jnp.where(kept, jnp.maximum(eigenvalues, _TINY), 1.0), damping)
        return jnp.where(kept, values, jnp.where(jnp.isnan(damping), jnp.nan, 0.0))

    def rate(self, eigenvalues: Float[Array, "..."], damping: Float[Array, ""] | float) -> Float[Array, "..."]:
        """lam k(lam), 0 at lam = 0: what the residual of a squared loss decays with, times N."""
        positive = eigenvalues > 0
        return jnp.where(positive, eigenvalues * self.value(jnp.where(positive, eigenvalues, 1.0), damping), 0.0)

    def bounds(
        self,
        smallest: Float[Array, ""],
        largest: Float[Array, ""],
        damping: Float[Array, ""] | float,
        metric: tuple[Float[Array, ""] | float, Float[Array, ""] | float],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Bounds of the eigenvalues of A K, K = R k(B) R^-1, where those of A lie between `smallest` and `largest`.

        With lam k(lam) increasing they lie between the rate at mu `smallest`, over lambda, and that at lambda `largest`, over
        mu; mu and lambda are the extreme eigenvalues of H, `metric`. Derived in docs/theorems/sandwich.md.
        """
        low, high = metric
        return self.rate(low * smallest, damping) / high, self.rate(high * largest, damping) / low


class ConstantGain(AbstractGain):
    """k = mobility: w' = -m J^T g, gradient flow."""

    is_truncated: ClassVar[bool] = False
    is_increasing: ClassVar[bool] = True

    mobility: float | Float[Array, ""]
    metric: AbstractOutputMetric = IdentityMetric()
    damping: AbstractDamping = Constant(0.0)

    @property
    def constant(self) -> float | Float[Array, ""] | None:
        """The mobility."""
        return self.mobility

    def speed(self, smallest: float, largest: float, scale: float) -> float:
        """m s at the largest."""
        return float(self.mobility) * largest

    def value(self, eigenvalues: Float[Array, "..."], damping: Float[Array, ""] | float) -> Float[Array, "..."]:
        """The mobility."""
        return jnp.full_like(eigenvalues, self.mobility)


class PowerGain(AbstractGain):
    """k = (lam + eps)^-power, with power in [0, 1]: the spectral family."""

    is_increasing: ClassVar[bool] = True

    power: float | Float[Array, ""]
    damping: AbstractDamping
    metric: AbstractOutputMetric = IdentityMetric()

    @property
    def inverts(self) -> bool:
        """At power 1."""
        return bool(self.power == 1)

    def speed(self, smallest: float, largest: float, scale: float) -> float:
        """s (scale s^2)^-power, which is monotone in s: at one of the ends."""
        power = float(self.power)
        return max(end * (scale * end**2) ** -power for end in (smallest, largest))

    def value(self, eigenvalues: Float[Array, "..."], damping: Float[Array, ""] | float) -> Float[Array, "..."]:
        """(lam + eps)^-power."""
        return (eigenvalues + damping) ** -self.power


class InverseGain(AbstractGain):
    """k = mobility/(lam + eps): Gauss-Newton and dual Gauss-Newton flow."""

    is_increasing: ClassVar[bool] = True

    metric: AbstractOutputMetric
    damping: AbstractDamping
    mobility: float | Float[Array, ""] = 1.0

    @property
    def inverts(self) -> bool:
        """With mobility 1."""
        return bool(self.mobility == 1)

    def speed(self, smallest: float, largest: float, scale: float) -> float:
        """m/(scale s) at the smallest."""
        return float(self.mobility) / (scale * smallest)

    def value(self, eigenvalues: Float[Array, "..."], damping: Float[Array, ""] | float) -> Float[Array, "..."]:
        """mobility/(lam + eps)."""
        return self.mobility / (eigenvalues + damping)

    def bounds(
        self,
        smallest: Float[Array, ""],
        largest: Float[Array, ""],
        damping: Float[Array, ""] | float,
        metric: tuple[Float[Array, ""] | float, Float[Array, ""] | float],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Sharper: A K = (H + eps A^-1)^-1 lies between sigma/(lambda sigma + eps) and sigma/(mu sigma + eps), infinite where
        mu = 0 without damping."""
        low, high = metric
        return (
            jnp.where(smallest > 0, self.mobility * smallest / (high * smallest + damping), 0.0),
            jnp.where(largest > 0, self.mobility * largest / (low * largest + damping), 0.0),
        )
