"""The first-order expansion of a model in its weights."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .._core import tree_subtract
from ._trainable import trainable_weights


class Linearised(eqx.Module):
    """f_lin(x; w) = f(x; w_0) + J(x; w_0) (w - w_0): the kernel regime of `base` as a model of its own.

    Its NTK never changes, so its flows have closed forms (Lee et al. 2019, arXiv 1902.06720; fact 2 of
    docs/theory.md). The weights start at w_0, where f_lin = f.

    **Arguments:** `base`: any Equinox module called on one input; its present trainable weights are w_0.

    **Attributes:**

    - `base`: the model that is expanded, with the weights w_0; it is not trained.
    - `weights`: the trained w, a pytree of the trainable arrays of `base` (None elsewhere).

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
        """The mobility of the base model; 1 for a model without one."""
        return getattr(self.base, "mobility", 1.0)

    @property
    def activations(self) -> tuple[Any, ...]:
        """(): the outputs are linear in the trained weights."""
        return ()

    def trainable_mask(self) -> "Linearised":
        """True at the weights w, not at the point of expansion w_0."""
        mask = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda model: model.weights, mask, jax.tree.map(lambda _: True, self.weights))

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The output at one input; shapes are those of the base model."""
        start, structure = trainable_weights(self.base)
        # Forward mode gives f(x; w_0) and J (w - w_0) in one pass.
        output, change = jax.jvp(lambda w: eqx.combine(w, structure)(x), (start,), (self.displacement,))
        return output + change
