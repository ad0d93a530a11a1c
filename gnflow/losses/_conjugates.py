"""Fenchel conjugates of losses, and what several of them share."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Dual variables are differences p - y of numbers up to one: this many units in the last place of one are rounding.
_ROUNDING = 8 * float(jnp.finfo(jnp.float64).eps)


class AbstractConjugate(eqx.Module):
    """What a loss adds that knows its Fenchel conjugate: `class MyLoss(AbstractConjugate, AbstractLoss)`.

    gnflow's own losses do; no flow needs it (docs/dual.md).
    """

    @abc.abstractmethod
    def conjugate(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, " N"]:
        """l*(alpha_n) = sup_f <alpha_n, f> - l(f, y_n) for each sample: the Fenchel conjugate, infinite outside its domain.

        **Arguments:** `alpha`: dual variables of the samples, in the units of grad l(f_n): N times a gradient of L.
        """

    @abc.abstractmethod
    def conjugate_gradient(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """The outputs f at which l* attains its supremum, so that grad l(f) = alpha: the inverse of the gradient.

        Of several such outputs one is taken (each class says which). Infinite where the supremum is only approached, on
        the boundary of the domain; nan for samples outside it, for which there are no such outputs.
        """

    @abc.abstractmethod
    def in_conjugate_domain(self, alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Bool[Array, " N"]:
        """Whether l* is finite, for each sample: the closure of the values of grad l, up to rounding."""


def rounding(alpha: Float[Array, "N C"]) -> float:
    """How far rounding may take a sum over the outputs of one sample beyond the domain of a conjugate."""
    return _ROUNDING * alpha.shape[1]


def log_shifted(alpha: Float[Array, "N C"], y: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """log(y + alpha), accurate also where y + alpha is nearly one; -inf at 0 and, by rounding, below."""
    near_one = y > 0.5
    above = jnp.maximum(alpha + (y - 1), -1.0)  # p - 1: for y = 1 it is alpha itself
    below = jnp.maximum(alpha + y, 0.0)
    return jnp.where(near_one, jnp.log1p(jnp.where(near_one, above, 0.0)), jnp.log(jnp.where(near_one, 1.0, below)))


def times_logarithm(p: Float[Array, "N C"], log_p: Float[Array, "N C"]) -> Float[Array, "N C"]:
    """p log p, 0 at p = 0 (and where rounding made p negative)."""
    inside = p > 0
    return jnp.where(inside, p * jnp.where(inside, log_p, 0.0), 0.0)


def where_in_domain(inside: Bool[Array, " N"], values: Float[Array, " N"]) -> Float[Array, " N"]:
    """The samples' values inside the domain of the conjugate, infinity outside."""
    return jnp.where(inside, values, jnp.inf)
