"""The tangent of any Equinox module, by automatic differentiation sample by sample in bounded memory."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_size
from ._row_products import row_products
from ._tangent import AbstractTangent

# Bytes of Jacobian rows that are held at once, for each side of a Gram block.
_CHUNK_BYTES = 128 * 2**20


class GenericTangent(AbstractTangent):
    """The tangent of any module that maps one input to outputs.

    A Gram matrix is built from blocks of rows of J. At most 128 MiB of rows are held on each side (or one sample's rows,
    if these are larger), and the rows of one side are computed again for each block of the other. If all rows fit, each is
    computed once.

    **Attributes:**

    - `outputs`: the outputs (n, C).
    - `weights`, `structure`: the model split into trained arrays and the rest.
    - `x`: the inputs (n, d), or a tree of arrays of n rows if the module takes one.
    """

    outputs: Float[Array, "samples outputs"]
    weights: PyTree
    structure: PyTree
    x: PyTree[Float[Array, "samples ..."]]

    def __init__(self, weights: PyTree, structure: PyTree, x: PyTree[Float[Array, "samples ..."]]):
        self.weights = weights
        self.structure = structure
        self.x = x
        self.outputs = self._batch_outputs(weights)

    def _single_output(self, weights: PyTree, x: PyTree) -> Array:
        return jnp.atleast_1d(eqx.combine(weights, self.structure)(x))

    def _batch_outputs(self, weights: PyTree) -> Array:
        return jax.vmap(self._single_output, in_axes=(None, 0))(weights, self.x)

    def jvp(self, displacement: PyTree) -> Float[Array, "samples outputs"]:
        """J r by forward mode: about twice the cost of the outputs."""
        return jax.jvp(self._batch_outputs, (self.weights,), (displacement,))[1]

    def vjp(self, coefficients: Float[Array, "samples outputs"]) -> PyTree:
        """J^T a by reverse mode: about three times the cost of the outputs."""
        return jax.vjp(self._batch_outputs, self.weights)[1](coefficients)[0]

    def cross_gram(self, other: "AbstractTangent") -> Float[Array, "rows columns"]:
        """J J'^T from per-sample Jacobian rows, block by block."""
        assert isinstance(other, GenericTangent)
        chunk = self._chunk
        left, right = _chunks(self.x, chunk), _chunks(other.x, chunk)
        if max(self.outputs.shape[0], other.outputs.shape[0]) <= chunk:
            rows = self._jacobian_rows(self.x)
            return _contract(rows, rows if self is other else other._jacobian_rows(other.x))
        blocks = jax.lax.map(
            lambda left_x: _row_of_blocks(self._jacobian_rows(left_x), other, right), left
        )  # (left chunks, right chunks, chunk C, chunk C)
        rows, columns = blocks.shape[0] * blocks.shape[2], blocks.shape[1] * blocks.shape[3]
        whole = blocks.transpose(0, 2, 1, 3).reshape(rows, columns)
        # Without the samples that fill up the last chunks.
        return whole[: self.outputs.size, : other.outputs.size]

    def jacobian(self) -> Float[Array, "rows weights"] | None:
        """J (nC, P) from per-sample Jacobian rows, if it is not larger than 128 MiB."""
        if self.outputs.shape[0] > self._chunk:
            return None
        return jnp.concatenate(jax.tree.leaves(self._jacobian_rows(self.x)), axis=1)

    @property
    def _chunk(self) -> int:
        """The number of samples whose rows are held at once."""
        return max(1, _CHUNK_BYTES // (8 * self.outputs.shape[1] * tree_size(self.weights)))

    def _jacobian_rows(self, x: PyTree) -> PyTree:
        jacobian = jax.vmap(jax.jacrev(self._single_output), in_axes=(None, 0))(self.weights, x)
        rows = jax.tree.leaves(x)[0].shape[0] * self.outputs.shape[1]
        return jax.tree.map(lambda leaf: leaf.reshape(rows, -1), jacobian)


def _chunks(x: PyTree, chunk: int) -> PyTree:
    """(n, ...) as (number of chunks, at most `chunk`, ...). The last chunk is filled up with copies of the last sample."""
    samples = jax.tree.leaves(x)[0].shape[0]
    count = math.ceil(samples / chunk)
    size = math.ceil(samples / count)

    def cut(leaf: Array) -> Array:
        padding = [(0, count * size - samples)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, padding, mode="edge").reshape(count, size, *leaf.shape[1:])

    return jax.tree.map(cut, x)


def _row_of_blocks(left_rows: PyTree, other: GenericTangent, right: PyTree) -> Array:
    return jax.lax.map(lambda right_x: _contract(left_rows, other._jacobian_rows(right_x)), right)


def _contract(left_rows: PyTree, right_rows: PyTree) -> Array:
    products = jax.tree.map(row_products, left_rows, right_rows)
    return sum(jax.tree.leaves(products))  # pyright: ignore[reportReturnType]
