"""The spectral radius of a velocity's Jacobian, by power iteration."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import stream, tree_add_scaled, tree_dot, tree_norm, tree_scale

# Products for a vector that is known nowhere near an eigenvector, and for one that was an eigenvector some steps ago; at most.
_FIRST_PRODUCTS, _PRODUCTS, _MOST_PRODUCTS = 8, 2, 50
# Of the velocity that is added to the last eigenvector, both of norm 1: a mode that has begun to grow is large in the velocity.
_SHARE = 0.3
# Relative change from one product to the next at which the radius counts as found.
_SETTLED = 0.02


class SpectralRadius(eqx.Module):
    """rho, the largest modulus of the eigenvalues of a Jacobian J that is symmetric or nearly, as power iteration found it.

    **Attributes:** `vector`: of norm 1, the last iterate; `radius`: |J v| of the last product, which for a symmetric J is rho
    or below it, 0 where nothing is known; `asymmetry`: the largest that was met, sqrt(max(1 - <v, J J v>/|J v|^2, 0)/2), which
    is 0 for a symmetric J, and for a normal one the rms of |Im lambda|/|lambda| over the modes in J v.
    """

    vector: PyTree
    radius: Float[Array, ""]
    asymmetry: Float[Array, ""]

    @classmethod
    def unknown(cls, weights: PyTree) -> "SpectralRadius":
        """A vector like `weights` with all modes in it, the same in every run."""
        flat, unravel = ravel_pytree(weights)
        drawn = jax.random.normal(stream(jax.random.key(0), "power iteration"), flat.shape, flat.dtype)
        nothing = jnp.zeros(())
        return cls(_normalised(unravel(drawn)), nothing, nothing)

    def refreshed(
        self,
        velocity: Callable[[PyTree], tuple[PyTree, Any]],
        weights: PyTree,
        start: tuple[PyTree, Any],
        wanted: Bool[Array, ""],
    ) -> tuple["SpectralRadius", tuple[PyTree, Any], Int[Array, ""]]:
        """At `weights`, where it is `wanted`; with (w', more) there and the number of products that it took.

        Each product J v is a derivative of `velocity`, weights -> (w', more), which comes with its value.

        **Arguments:** `start`: what `velocity` is at `weights`, or zeros where that is not known: then at least one product has
        to be `wanted`.
        """
        known = self.radius > 0
        least = jnp.where(known, _PRODUCTS, _FIRST_PRODUCTS)
        seeded = _normalised(tree_add_scaled(self.vector, _SHARE, _normalised(start[0])))

        def goes_on(carry: Any) -> Bool[Array, ""]:
            count, _, _, _, _, settled = carry
            return wanted & (count < _MOST_PRODUCTS) & ((count < least) | ~settled)

        def product(carry: Any) -> Any:
            count, found, last, before, _, _ = carry
            value, pushed, more = jax.jvp(velocity, (weights,), (found.vector,), has_aux=True)
            size = tree_norm(pushed)
            following = _normalised(pushed, otherwise=found.vector)
            # With a = v_(k-1): |J a|^2 - <a, J J a>, over |J a|^2.
            apart = 1 - size / jnp.where(found.radius > 0, found.radius, 1.0) * tree_dot(last, following)
            apart = jnp.where((count > 0) & (found.radius > 0) & (size > 0), jnp.maximum(apart, 0.0), 0.0)
            settled = (jnp.abs(size - before) <= _SETTLED * size) | ~jnp.isfinite(size)
            # The velocity that was added belies the first product: the second is compared with what was known.
            before = jnp.where(count == 0, before, size)
            new = SpectralRadius(following, size, jnp.maximum(found.asymmetry, jnp.sqrt(apart / 2)))
            return count + 1, new, found.vector, before, (value, more), settled

        first = SpectralRadius(
            jax.tree.map(lambda a, b: jnp.where(wanted, a, b), seeded, self.vector), self.radius, self.asymmetry
        )
        carry = (jnp.zeros((), dtype=int), first, self.vector, self.radius, start, jnp.asarray(False))
        count, found, _, _, start, _ = jax.lax.while_loop(goes_on, product, carry)
        return found, start, count


def _normalised(tree: PyTree, otherwise: PyTree | None = None) -> PyTree:
    """With norm 1; zeros, or the tree `otherwise`, where it has none that is positive and finite."""
    size = tree_norm(tree)
    usable = (size > 0) & jnp.isfinite(size)
    scaled = tree_scale(1 / jnp.where(usable, size, 1.0), tree)
    otherwise = jax.tree.map(jnp.zeros_like, tree) if otherwise is None else otherwise
    return jax.tree.map(lambda a, b: jnp.where(usable, a, b), scaled, otherwise)
