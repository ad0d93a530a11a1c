"""Tangents of models that wrap another one: the inner tangent, with other outputs or another tree of weights."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PyTree

from ._tangent import AbstractTangent


class WrappedTangent(AbstractTangent):
    """The tangent of a model whose Jacobian is that of an inner model, under another tree of weights.

    **Attributes:**

    - `outputs`: the outputs (n, C) of the wrapping model.
    - `inner`: the tangent that has the Jacobian.
    - `weights`: the weights of the wrapping model.
    - `inner_weights`: the same leaves, in the same order, in the tree of the inner model.
    """

    outputs: Float[Array, "samples outputs"]
    inner: AbstractTangent
    weights: PyTree
    inner_weights: PyTree

    def jvp(self, displacement: PyTree) -> Float[Array, "samples outputs"]:
        """J r through the inner model."""
        return self.inner.jvp(_in_tree_of(self.inner_weights, displacement))

    def vjp(self, coefficients: Float[Array, "samples outputs"]) -> PyTree:
        """J^T a in the wrapping model's tree."""
        return _in_tree_of(self.weights, self.inner.vjp(coefficients))

    def cross_gram(self, other: AbstractTangent) -> Float[Array, "rows columns"]:
        """J J'^T of the inner tangents."""
        assert isinstance(other, WrappedTangent)
        return self.inner.cross_gram(other.inner)

    def gram_operator(self) -> Callable[[Float[Array, "samples outputs"]], Float[Array, "samples outputs"]]:
        """v -> A v of the inner tangent."""
        return self.inner.gram_operator()

    def sample_blocks(self) -> Float[Array, "samples outputs outputs"]:
        """The diagonal blocks of A, (n, C, C), of the inner tangent."""
        return self.inner.sample_blocks()

    def projected_gram(self, projections: Float[Array, "count samples outputs"]) -> Float[Array, "samples samples"]:
        """sum_k v_kn^T A_nm v_km, (n, n), of the inner tangent."""
        return self.inner.projected_gram(projections)


def _in_tree_of(tree: PyTree, leaves_of: PyTree) -> PyTree:
    """The leaves of one tree in the structure of the other: the same weights in the same order, under other names."""
    return jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(leaves_of))
