"""What a function is said to compute."""

import jax
import jax.numpy as jnp
import pytest

from gnflow._core import count_operations


def test_a_matrix_product_is_its_multiply_adds():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert count_operations(lambda a, b: a @ b, a, b) == 3 * 4 * 5
    batched = jax.vmap(lambda a, b: a @ b)
    assert count_operations(batched, jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5))) == 7 * 3 * 4 * 5


def test_a_convolution_is_its_multiply_adds():
    image, kernel = jnp.ones((2, 3, 8, 8)), jnp.ones((5, 3, 3, 3))

    def convolved(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME")

    assert count_operations(convolved, image, kernel) == (2 * 5 * 8 * 8) * (3 * 3 * 3)


@pytest.mark.parametrize("size", [10, 20])
def test_a_decomposition_grows_with_the_cube(size):
    one, two = (count_operations(lambda a: jnp.linalg.eigh(a)[1], jnp.eye(n)) for n in (100 * size, 200 * size))
    assert two / one == pytest.approx(8, rel=1e-2)


def test_loops_and_programs_inside():
    x = jnp.ones((3, 3))
    one = count_operations(lambda x: x @ x, x)
    assert count_operations(jax.jit(lambda x: x @ x), x) == one
    looped = lambda x: jax.lax.scan(lambda y, _: (y @ x, None), x, None, length=10)[0]  # noqa: E731
    assert count_operations(looped, x) == 10 * one
    either = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x)  # noqa: E731
    assert one <= count_operations(either, x) <= one + 60  # the larger branch, and the comparison


def test_functions_take_longer_than_sums_and_numbers_do_not_count():
    x = jnp.ones(100)
    assert count_operations(jnp.tanh, x) == 10 * count_operations(lambda x: x + 1.0, x) > 0
    assert count_operations(jnp.tanh, x) == count_operations(jnp.tanh, 1e300 * x)
    assert count_operations(jnp.tanh, jax.ShapeDtypeStruct((100,), x.dtype)) == count_operations(jnp.tanh, x)
