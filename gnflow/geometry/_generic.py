"""The tangent of any Equinox module, by automatic differentiation sample by sample in bounded memory."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import operations, tree_size
from ._row_products import row_products
from ._tangent import AbstractTangent

# Bytes of Jacobian rows that are held at once. Where they are not enough for all rows, either side of a block has half of them.
MOST_BYTES_OF_ROWS = 2**30


class GenericTangent(AbstractTangent):
    """The tangent of any module that maps one input to outputs.

    A Gram matrix is a product of rows of J. If all rows of both sides fit into 1 GiB, each is computed once. Otherwise it is
    built from blocks of at most 512 MiB of rows on each side (or one sample's rows, if these are larger): the rows of one side
    are computed again for each block of the other, and of a symmetric matrix only the blocks on one side of the diagonal.

    **Attributes:**

    - `outputs`: the outputs (n, C).
    - `weights`, `structure`: the model split into trained arrays and the rest.
    - `x`: the inputs (n, ...), or a tree of arrays of n rows if the module takes one.
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
        """J J'^T from per-sample Jacobian rows, at once or block by block."""
        assert isinstance(other, GenericTangent)
        num_outputs, twin = self.outputs.shape[1], self is other
        of_sample = 8 * num_outputs * tree_size(self.weights)
        samples = _count(self.x) + (0 if twin else _count(other.x))
        if samples * of_sample <= MOST_BYTES_OF_ROWS:
            rows = self._jacobian_rows(self.x)
            return _contract(rows, rows if twin else other._jacobian_rows(other.x))
        chunk = max(1, MOST_BYTES_OF_ROWS // 2 // of_sample)
        left, right = _chunks(self.x, chunk), _chunks(other.x, chunk)
        (left_count, right_count), (left_size, right_size) = zip(*map(_shape, (left, right)), strict=True)
        size = left_size * num_outputs, right_size * other.outputs.shape[1]

        def row_of_blocks(left_block: tuple[Array, PyTree]) -> Array:
            left_index, left_x = left_block
            left_rows = self._jacobian_rows(left_x)

            def block(right_block: tuple[Array, PyTree]) -> Array:
                right_index, right_x = right_block
                skipped = jnp.asarray(twin) & (right_index < left_index)
                make: Any = lambda x: _contract(left_rows, other._jacobian_rows(x))  # noqa: E731
                return jax.lax.cond(skipped, lambda _: jnp.zeros(size), make, right_x)

            return jax.lax.map(block, (jnp.arange(right_count), right))

        blocks = jax.lax.map(
            row_of_blocks, (jnp.arange(left_count), left)
        )  # (left chunks, right chunks, chunk C, chunk C)
        whole = blocks.transpose(0, 2, 1, 3).reshape(left_count * size[0], right_count * size[1])
        # Without the samples that fill up the last chunks.
        whole = whole[: self.outputs.size, : other.outputs.size]
        return jnp.triu(whole) + jnp.triu(whole, 1).T if twin else whole

    def sample_blocks(self) -> Float[Array, "samples outputs outputs"]:
        """The diagonal blocks of A, (n, C, C), from the rows of one sample after the other."""

        def block(x: PyTree) -> Array:
            rows = self._jacobian_rows(jax.tree.map(lambda leaf: leaf[None], x))
            return _contract(rows, rows)

        return jax.lax.map(block, self.x)

    @property
    def jacobian_width(self) -> int | None:
        """P, if J is not larger than 1 GiB."""
        return width_within_memory(self)

    def jacobian(self) -> Float[Array, "rows weights"]:
        """J (nC, P) from per-sample Jacobian rows."""
        return jnp.concatenate(jax.tree.leaves(self._jacobian_rows(self.x)), axis=1)

    def _jacobian_rows(self, x: PyTree) -> PyTree:
        """J for the inputs `x` (n, ...): a tree like the weights, with leaves (n C, size)."""

        def of_one(one: PyTree) -> PyTree:
            return jax.jacrev(self._single_output)(self.weights, one)

        # The gradients of a kernel for many samples at once are one convolution with a group for each sample, which takes a CPU
        # up to a hundred times as long as the samples one after the other (docs/devdocs/solvers.md, Convolutions).
        first = jax.tree.map(lambda leaf: leaf[0], x)
        names = {name for name, _ in operations(self._single_output, self.weights, first)}
        one_by_one = "conv_general_dilated" in names
        jacobian = jax.lax.map(of_one, x) if one_by_one else jax.vmap(of_one)(x)
        rows = _count(x) * self.outputs.shape[1]
        return jax.tree.map(lambda leaf: leaf.reshape(rows, -1), jacobian)


def _chunks(x: PyTree, chunk: int) -> PyTree:
    """(n, ...) as (number of chunks, at most `chunk`, ...). The last chunk is filled up with copies of the last sample."""
    samples = _count(x)
    count = math.ceil(samples / chunk)
    size = math.ceil(samples / count)

    def cut(leaf: Array) -> Array:
        padding = [(0, count * size - samples)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, padding, mode="edge").reshape(count, size, *leaf.shape[1:])

    return jax.tree.map(cut, x)


def width_within_memory(tangent: Any) -> int | None:
    """P of a tangent with `outputs` and `weights`, if its J is not larger than 1 GiB; None if it is."""
    width = tree_size(tangent.weights)
    return width if 8 * tangent.outputs.size * width <= MOST_BYTES_OF_ROWS else None


def _shape(x: PyTree) -> tuple[int, ...]:
    """The number of chunks, and the samples of each."""
    return jax.tree.leaves(x)[0].shape[:2]


def _count(x: PyTree) -> int:
    """The number of samples."""
    return jax.tree.leaves(x)[0].shape[0]


def _contract(left_rows: PyTree, right_rows: PyTree) -> Array:
    products = jax.tree.map(row_products, left_rows, right_rows)
    return sum(jax.tree.leaves(products))  # pyright: ignore[reportReturnType]
