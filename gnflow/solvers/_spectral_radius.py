"""The spectral radius of a velocity's Jacobian, by power iteration."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import stream, tree_add_scaled, tree_dot, tree_norm, tree_scale

# The least number of products for a random vector, and for one that was an eigenvector some steps ago; and the largest number.
_FIRST_PRODUCTS, _PRODUCTS, _MOST_PRODUCTS = 8, 2, 50
# The share of the velocity that is added to the last eigenvector (both normalised). A mode that has begun to grow is large in
# the velocity, but may be missing in the old eigenvector.
_SHARE = 0.3
# The relative change between two products at which the radius counts as found.
_SETTLED = 0.02


class SpectralRadius(eqx.Module):
    """The spectral radius rho (largest modulus of an eigenvalue) of a nearly symmetric Jacobian J, by power iteration.

    **Attributes:**

    - `vector`: the last iterate v, of norm 1.
    - `radius`: |J v| of the last product. It is at most rho for a symmetric J; 0 means unknown.
    - `asymmetry`: the largest value so far of sqrt(max(1 - <v, J J v>/|J v|^2, 0)/2). It is 0 for a symmetric J, and for a
      normal one the rms of |Im lambda|/|lambda| over the modes in J v.
    """

    vector: PyTree
    radius: Float[Array, ""]
    asymmetry: Float[Array, ""]

    @classmethod
    def unknown(cls, weights: PyTree) -> "SpectralRadius":
        """A random vector like `weights`, which contains all modes and is the same in every run. The radius is unknown."""
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
        """The spectral radius at `weights`, computed again if `wanted`.

        Each product J v is a derivative of `velocity`, whose value comes with it.

        **Arguments:**

        - `velocity`: a function weights -> (w', more).
        - `weights`: where J is taken.
        - `start`: the value of `velocity` at `weights`, or zeros if it is not known. Then `wanted` must be True.
        - `wanted`: whether to compute the radius again.

        **Returns:** the spectral radius, the value of `velocity` at `weights`, and the number of products.
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
            # 1 - <a, J J a>/|J a|^2 for the iterate a before this one, from J a = |J a| v and J v.
            apart = 1 - size / jnp.where(found.radius > 0, found.radius, 1.0) * tree_dot(last, following)
            apart = jnp.where((count > 0) & (found.radius > 0) & (size > 0), jnp.maximum(apart, 0.0), 0.0)
            settled = (jnp.abs(size - before) <= _SETTLED * size) | ~jnp.isfinite(size)
            # The velocity in the vector falsifies the size of the first product, so the second one is compared with the known
            # radius instead.
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
    """`tree` scaled to norm 1. If its norm is 0 or not finite: the tree `otherwise`, or zeros."""
    size = tree_norm(tree)
    usable = (size > 0) & jnp.isfinite(size)
    scaled = tree_scale(1 / jnp.where(usable, size, 1.0), tree)
    otherwise = jax.tree.map(jnp.zeros_like, tree) if otherwise is None else otherwise
    return jax.tree.map(lambda a, b: jnp.where(usable, a, b), scaled, otherwise)
