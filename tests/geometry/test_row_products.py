"""Inner products of rows, by blocks where both sides are the same."""

import jax
import jax.random as jr
import numpy as np
import pytest

from gnflow.geometry._row_products import row_products


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 300, 404])
def test_of_an_array_with_itself(rows):
    matrix = jr.normal(jr.key(rows), (rows, 7))
    got = np.asarray(jax.jit(lambda b: row_products(b, b))(matrix))
    np.testing.assert_allclose(got, np.asarray(matrix) @ np.asarray(matrix).T, rtol=0, atol=1e-13)
    if rows >= 256:
        np.testing.assert_array_equal(got, got.T)


def test_of_two_arrays():
    left, right = jr.normal(jr.key(0), (300, 7)), jr.normal(jr.key(1), (280, 7))
    np.testing.assert_allclose(row_products(left, right), np.asarray(left) @ np.asarray(right).T, rtol=0, atol=1e-13)


def test_half_the_work_where_they_are_the_same():
    """Counted by the compiler: 15 of 25 blocks."""

    def flops(function):
        return jax.jit(function).lower(jax.ShapeDtypeStruct((500, 64), "float64")).compile().cost_analysis()["flops"]

    assert flops(lambda b: row_products(b, b)) < 0.62 * flops(lambda b: b @ b.T)
