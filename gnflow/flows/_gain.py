"""The law of a flow as a scalar function of the eigenvalues of the Gram matrix."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..geometry import AbstractOutputMetric, IdentityMetric, rank_cutoff
from ..geometry.damping import AbstractDamping, Constant
from ..geometry.directions import kept_modes

_TINY = float(jnp.finfo(jnp.float64).tiny)


class AbstractGain(eqx.Module):
    """The gain k of a flow w' = -J^T R k(B) h, where H = R R^T is the output metric, B = R^T A R the Gram matrix in it, and
    g = R h.

    Along an eigenvector of B with eigenvalue lam the gradient is multiplied by k(lam) >= 0, which must not increase with eps. A
    flow with a gain (`AbstractFlow.gain`) gets its certificates from this function, whatever its class.

    **Attributes:**

    - `metric`: H.
    - `damping`: the rule for eps, on which k may depend.
    - `is_truncated`: whether modes with lam + eps at the rounding of B are left out.
    - `is_increasing`: whether lam k(lam) does not decrease with lam, for eps fixed or proportional to lam. Bounds of the
      eigenvalues of A then bound the rates of decay. The default False is always safe.
    """

    is_truncated: ClassVar[bool] = True
    is_increasing: ClassVar[bool] = False

    metric: eqx.AbstractVar[AbstractOutputMetric]
    damping: eqx.AbstractVar[AbstractDamping]

    @property
    def inverts(self) -> bool:
        """Whether k(lam) = 1/(lam + eps), so that the undamped flow of a squared loss has one rate for all modes.

        The default is False.
        """
        return False

    @abc.abstractmethod
    def value(self, eigenvalues: Float[Array, "..."], damping: Float[Array, ""] | float) -> Float[Array, "..."]:
        """k(lam) for lam > 0, at eps = `damping`."""

    @property
    def constant(self) -> float | Float[Array, ""] | None:
        """The value of k if it is the same for all modes at all times; None, the default, otherwise."""
        return None

    def speed(self, smallest: float, largest: float, scale: float) -> float:
        """A bound of ||w'||/||g||, that is of s k(scale s^2) over the singular values s of J. Infinite by default.

        **Arguments:**

        - `smallest`, `largest`: bounds of the singular values; `smallest` is positive.
        - `scale`: of the metric H = scale I.
        """
        return math.inf

    def __call__(
        self,
        eigenvalues: Float[Array, " size"],
        damping: Float[Array, ""] | float,
        cutoff: Float[Array, ""] | None = None,
    ) -> Float[Array, " size"]:
        """k at all eigenvalues (size,) of one matrix B, ascending.

        It is 0 for modes that are left out, the limit of k at eigenvalue 0, and nan if the damping is nan.

        **Arguments:**

        - `eigenvalues`: all of B, ascending.
        - `damping`: eps.
        - `cutoff`: the value up to which an eigenvalue cannot be told from zero; that of an eigendecomposition of B if it is
          None.
        """
        cutoff = rank_cutoff(eigenvalues) if cutoff is None else cutoff
        kept = kept_modes(eigenvalues, jnp.asarray(damping), cutoff) if self.is_truncated else jnp.asarray(True)
        values = self.value(jnp.where(kept, jnp.maximum(eigenvalues, _TINY), 1.0), damping)
        return jnp.where(kept, values, jnp.where(jnp.isnan(damping), jnp.nan, 0.0))

    def rate(self, eigenvalues: Float[Array, "..."], damping: Float[Array, ""] | float) -> Float[Array, "..."]:
        """lam k(lam), and 0 at lam = 0. It is N times the rate at which the residual of a squared loss decays."""
        positive = eigenvalues > 0
        return jnp.where(positive, eigenvalues * self.value(jnp.where(positive, eigenvalues, 1.0), damping), 0.0)

    def bounds(
        self,
        smallest: Float[Array, ""],
        largest: Float[Array, ""],
        damping: Float[Array, ""] | float,
        metric: tuple[Float[Array, ""] | float, Float[Array, ""] | float],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """A lower and an upper bound of the eigenvalues of A K with K = R k(B) R^-1.

        If lam k(lam) increases, these are rate(mu smallest)/lambda and rate(lambda largest)/mu. Derived in
        docs/theorems/sandwich.md.

        **Arguments:**

        - `smallest`, `largest`: bounds of the eigenvalues of A.
        - `damping`: eps.
        - `metric`: the smallest and the largest eigenvalue (mu, lambda) of H.
        """
        low, high = metric
        return self.rate(low * smallest, damping) / high, self.rate(high * largest, damping) / low


class ConstantGain(AbstractGain):
    """k = mobility m: gradient flow w' = -m J^T g."""

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
        """m s at the largest s."""
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
        """True for power 1."""
        return bool(self.power == 1)

    def speed(self, smallest: float, largest: float, scale: float) -> float:
        """s (scale s^2)^-power, which is monotone in s and so largest at one of the ends."""
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
        """True for mobility 1."""
        return bool(self.mobility == 1)

    def speed(self, smallest: float, largest: float, scale: float) -> float:
        """m/(scale s) at the smallest s."""
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
        """Sharper bounds than those of the base class, from A K = m (H + eps A^-1)^-1.

        They are m sigma/(lambda sigma + eps) at the smallest sigma and m sigma/(mu sigma + eps) at the largest one, which is
        infinite for mu = 0 without damping.
        """
        low, high = metric
        return (
            jnp.where(smallest > 0, self.mobility * smallest / (high * smallest + damping), 0.0),
            jnp.where(largest > 0, self.mobility * largest / (low * largest + damping), 0.0),
        )
