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
    - `x`: the inputs (n, ...).
    """

    outputs: Float[Array, "samples outputs"]
    weights: PyTree
    structure: PyTree
    x: Float[Array, "samples ..."]

    def __init__(self, weights: PyTree, structure: PyTree, x: Float[Array, "samples ..."]):
        self.weights = weights
        self.structure = structure
        self.x = x
        self.outputs = self._batch_outputs(weights)

    def _single_output(self, weights: PyTree, x: Array) -> Array:
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
        samples = len(self.x) + (0 if twin else len(other.x))
        if samples * of_sample <= MOST_BYTES_OF_ROWS:
            rows = self._jacobian_rows(self.x)
            return _contract(rows, rows if twin else other._jacobian_rows(other.x))
        chunk = max(1, MOST_BYTES_OF_ROWS // 2 // of_sample)
        left, right = _chunks(self.x, chunk), _chunks(other.x, chunk)
        size = left.shape[1] * num_outputs, right.shape[1] * num_outputs

        def row_of_blocks(left_block: tuple[Array, Array]) -> Array:
            left_index, left_x = left_block
            left_rows = self._jacobian_rows(left_x)

            def block(right_block: tuple[Array, Array]) -> Array:
                right_index, right_x = right_block
                skipped = jnp.asarray(twin) & (right_index < left_index)
                make: Any = lambda x: _contract(left_rows, other._jacobian_rows(x))  # noqa: E731
                return jax.lax.cond(skipped, lambda _: jnp.zeros(size), make, right_x)

            return jax.lax.map(block, (jnp.arange(len(right)), right))

        blocks = jax.lax.map(
            row_of_blocks, (jnp.arange(len(left)), left)
        )  # (left chunks, right chunks, chunk C, chunk C)
        whole = blocks.transpose(0, 2, 1, 3).reshape(len(left) * size[0], len(right) * size[1])
        # Without the samples that fill up the last chunks.
        whole = whole[: self.outputs.size, : other.outputs.size]
        return jnp.triu(whole) + jnp.triu(whole, 1).T if twin else whole

    def sample_blocks(self) -> Float[Array, "samples outputs outputs"]:
        """The diagonal blocks of A, (n, C, C), from the rows of one sample after the other."""

        def block(x: Array) -> Array:
            rows = self._jacobian_rows(x[None])
            return _contract(rows, rows)

        return jax.lax.map(block, self.x)

    def _jacobian_rows(self, x: Array) -> PyTree:
        """J for the inputs `x` (n, ...): a tree like the weights, with leaves (n C, size)."""

        def of_one(one: Array) -> PyTree:
            return jax.jacrev(self._single_output)(self.weights, one)

        # The gradients of a kernel for many samples at once are one convolution with a group for each sample, which takes a CPU
        # up to a hundred times as long as the samples one after the other (docs/devdocs/solvers.md, Convolutions).
        names = {name for name, _ in operations(self._single_output, self.weights, x[0])}
        one_by_one = "conv_general_dilated" in names
        jacobian = jax.lax.map(of_one, x) if one_by_one else jax.vmap(of_one)(x)
        rows = x.shape[0] * self.outputs.shape[1]
        return jax.tree.map(lambda leaf: leaf.reshape(rows, -1), jacobian)


def _chunks(x: Array, chunk: int) -> Array:
    """(n, ...) as (number of chunks, at most `chunk`, ...). The last chunk is filled up with copies of the last sample."""
    count = math.ceil(x.shape[0] / chunk)
    size = math.ceil(x.shape[0] / count)
    padding = [(0, count * size - x.shape[0])] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding, mode="edge").reshape(count, size, *x.shape[1:])


def _contract(left_rows: PyTree, right_rows: PyTree) -> Array:
    products = jax.tree.map(row_products, left_rows, right_rows)
    return sum(jax.tree.leaves(products))  # pyright: ignore[reportReturnType]
