"""Fenchel conjugates of losses, and formulas that several of them share."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Dual variables are differences p - y of numbers up to one, so their rounding is absolute: some units in the last place of
# one.
_ROUNDING = 8 * float(jnp.finfo(jnp.float64).eps)


class AbstractConjugate(eqx.Module):
    """The Fenchel conjugate of a loss: `class MyLoss(AbstractConjugate, AbstractLoss)`.

    gnflow's own losses have one. No flow needs it (docs/dual.md).
    """

    @abc.abstractmethod
    def conjugate(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, " N"]:
        """The Fenchel conjugate l*(alpha_n) = sup_f <alpha_n, f> - l(f, y_n) of each sample; infinite outside its domain.

        **Arguments:**

        - `alpha`: dual variables (N, C), in the units of grad l(f_n): N times a gradient of L.
        - `y`: canonical targets (N, C).
        """

    @abc.abstractmethod
    def conjugate_gradient(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """The outputs f at which the supremum of l* is attained, where grad l(f) = alpha: the inverse of the gradient.

        If there are several, each class says which one it returns. The outputs are infinite where the supremum is only
        approached, on the boundary of the domain, and nan for samples outside it.
        """

    @abc.abstractmethod
    def in_conjugate_domain(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, " N"]:
        """Whether l* is finite, for each sample. The domain is the closure of the values of grad l; rounding is allowed for."""


def rounding(alpha: Float[Array, "N C"]) -> float:
    """How far rounding may move a sum over the outputs of one sample out of the domain of a conjugate."""
    return _ROUNDING * alpha.shape[1]


def log_shifted(alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """log(y + alpha), accurate also where y + alpha is nearly one; -inf at 0 and where rounding made it negative."""
    # Adding alpha to y = 1 would round a small alpha away; log1p keeps it.
    near_one = y > 0.5
    above = jnp.maximum(alpha + (y - 1), -1.0)  # p - 1, which is alpha itself for y = 1
    below = jnp.maximum(alpha + y, 0.0)
    return jnp.where(near_one, jnp.log1p(jnp.where(near_one, above, 0.0)), jnp.log(jnp.where(near_one, 1.0, below)))


def times_logarithm(p: Float[Array, "N C"], log_p: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """p log p, 0 at p = 0 (and where rounding made p negative)."""
    inside = p > 0
    return jnp.where(inside, p * jnp.where(inside, log_p, 0.0), 0.0)


def where_in_domain(inside: Bool[Array, " N"], values: Float[Array, " N"]) -> Float[Array, " N"]:
    """The samples' values inside the domain of the conjugate, infinity outside."""
    return jnp.where(inside, values, jnp.inf)
