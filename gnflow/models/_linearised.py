"""Any model replaced by its first-order expansion in the weights about a point."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .._core import tree_subtract
from ._trainable import trainable_weights


class Linearised(eqx.Module):
    """f_lin(x; w) = f(x; w_0) + J(x; w_0) (w - w_0): the kernel regime of `base` made a model of its own.

    Its NTK never changes, so its flows have closed forms (Lee et al. 2019, arXiv 1902.06720; fact 2 of
    docs/theory.md). The weights start at w_0, so that f_lin = f at the start.

    **Arguments:** `base`: any Equinox module called on one input; its trainable weights at this moment are w_0.

    **Attributes:** `base`: fixed; `weights`: the trained w, a pytree of the trainable arrays of `base` (None elsewhere).

    **Raises:** `ModelError` if `base` has no trainable weights.
    """

    weights: PyTree
    base: Any

    def __init__(self, base: Any):
        self.weights, _ = trainable_weights(base)
        self.base = base

    @property
    def displacement(self) -> PyTree:
        """w - w_0."""
        return tree_subtract(self.weights, trainable_weights(self.base)[0])

    @property
    def mobility(self) -> float:
        """That of the base model; 1 for a model without one."""
        return getattr(self.base, "mobility", 1.0)

    @property
    def activations(self) -> tuple[Any, ...]:
        """None between the trained weights and the outputs, which are linear in them."""
        return ()

    def trainable_mask(self) -> "Linearised":
        """Only the displaced weights are trained, not the point of expansion."""
        mask = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda model: model.weights, mask, jax.tree.map(lambda _: True, self.weights))

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The output at one input, of the same shapes as the base model's."""
        start, structure = trainable_weights(self.base)
        output, change = jax.jvp(lambda w: eqx.combine(w, structure)(x), (start,), (self.displacement,))
        return output + change
