"""What a function is said to compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnflow._core import count_operations, has_operation


def test_products_are_multiplied_and_sums_are_moved():
    left, right = jnp.zeros((200, 300)), jnp.zeros((300, 400))
    assert count_operations(jnp.dot, left, right) == 200 * 300 * 400
    assert count_operations(lambda a: a + 1.0, left) == pytest.approx(2 * 8 * left.size, rel=1e-3)
    batched = jax.vmap(lambda a, b: a @ b)
    assert count_operations(batched, jnp.ones((7, 90, 80)), jnp.ones((7, 80, 70))) == 7 * 90 * 80 * 70


def test_a_convolution_is_its_multiplications():
    image, kernel = jnp.ones((2, 30, 8, 8)), jnp.ones((50, 30, 3, 3))

    def convolved(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME")

    assert count_operations(convolved, image, kernel) == (2 * 50 * 8 * 8) * (30 * 3 * 3)


def test_a_decomposition_grows_with_the_cube():
    one, two = (count_operations(lambda a: jnp.linalg.eigh(a)[1], jnp.eye(size)) for size in (300, 600))
    assert two / one == pytest.approx(8, rel=0.1)
    assert one > 300**3
    both = count_operations(jnp.linalg.cholesky, jnp.zeros((2, 300, 300)))
    assert both == pytest.approx(2 * count_operations(jnp.linalg.cholesky, jnp.eye(300)), rel=0.1)


def test_loops_branches_and_programs_inside():
    x = jnp.zeros((1000, 1000))
    one = count_operations(lambda x: x @ x, x)
    assert count_operations(jax.jit(lambda x: x @ x), x) == one
    repeated = count_operations(lambda x: jax.lax.map(lambda _: x @ x, jnp.arange(7)), x)
    assert repeated == pytest.approx(7 * one, rel=0.05)
    either = count_operations(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x), x)
    assert either == pytest.approx(one, rel=0.05)


def test_nothing_is_computed_and_numbers_do_not_count():
    x = jnp.ones(100)
    assert count_operations(jnp.tanh, x) == count_operations(jnp.tanh, np.nan * x) > 0

    def called(array):
        assert isinstance(array, jax.core.Tracer)
        return array

    count_operations(called, x)


def test_the_same_shapes_are_traced_once():
    traced = []

    def function(array, name):
        traced.append(name)
        return array + 1.0

    first = count_operations(function, jnp.zeros(7), "a")
    assert count_operations(function, jnp.ones(7), "a") == first
    assert count_operations(function, jnp.ones(14), "a") > first
    count_operations(function, jnp.ones(7), "b")
    assert traced == ["a", "a", "b"]
    count_operations(function, jnp.ones(7), [np.zeros(1)])  # which has no hash
    assert len(traced) == 4


def test_an_operation_is_found_wherever_it_stands():
    image, kernel = jnp.ones((2, 3, 8, 8)), jnp.ones((5, 3, 3, 3))

    def convolved(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME")

    looped = jax.jit(lambda image, kernel: jax.lax.map(lambda _: convolved(image, kernel), jnp.arange(2)))
    for function in (convolved, jax.grad(lambda image, kernel: jnp.sum(convolved(image, kernel) ** 2)), looped):
        assert has_operation("conv_general_dilated", function, image, kernel)
    assert not has_operation("conv_general_dilated", jnp.add, image, image)
