"""The phi-functions against their definition in 80 digits."""

import decimal
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnflow.solvers import phi_functions
from gnflow.solvers._phi import divided_phi_functions

HIGHEST = 5
# From 0 over the smallest numbers there are and the switch of the two formulas to the end of the range.
NEAR_SWITCH = -2.0 * (1 + np.array([-1e-3, -1e-8, -(2.0**-53), 0.0, 2.0**-52, 1e-8, 1e-3]))
ARGUMENTS = -np.concatenate(
    [
        [0.0, 5e-324, 2.3e-308, 1e-300, 1e-30],
        np.logspace(-17, 12, 300),
        np.linspace(0.01, 6, 300),
        -NEAR_SWITCH,
        [700.0, 744.0, 746.0, 1e15, 1e100, 1e300],
    ]
)


def exact(z: float | decimal.Decimal, digits: int = 80) -> list[decimal.Decimal]:
    """phi_0, ..., phi_HIGHEST: the series near 0, the recurrence far from it."""
    with decimal.localcontext() as context:
        context.prec = digits
        context.Emin, context.Emax = decimal.MIN_EMIN, decimal.MAX_EMAX
        argument = decimal.Decimal(z)
        if abs(argument) < 1:
            return [
                sum((argument**p / math.factorial(p + k) for p in range(1, 90)), decimal.Decimal(1) / math.factorial(k))
                for k in range(HIGHEST + 1)
            ]
        values = [argument.exp()]
        for k in range(HIGHEST):
            values.append((values[-1] - decimal.Decimal(1) / math.factorial(k)) / argument)
        return values


@pytest.fixture(scope="module")
def values():
    """phi_k of all arguments, (k, arguments), as computed and as they are."""
    computed = np.array(jax.jit(lambda z: phi_functions(z, HIGHEST))(jnp.asarray(ARGUMENTS)))
    return computed, np.array([exact(float(z)) for z in ARGUMENTS]).T


@pytest.mark.parametrize("k", range(HIGHEST + 1))
def test_all_digits_from_zero_to_minus_infinity(values, k):
    computed, expected = values[0][k], values[1][k]
    normal = expected > decimal.Decimal("1e-307")
    errors = [float(abs(decimal.Decimal(c) / e - 1)) for c, e in zip(computed[normal], expected[normal], strict=True)]
    assert max(errors) < 1e-14, ARGUMENTS[normal][np.argmax(errors)]
    # What no normal number can hold vanishes: in exp far out.
    assert np.all((computed[~normal] >= 0) & (computed[~normal] < 1e-306))
    assert np.all(ARGUMENTS[~normal] < -700)
    assert k == 0 or np.all(normal)


def test_between_zero_and_their_value_at_zero(values):
    computed = values[0]
    assert np.all(np.isfinite(computed))
    for k in range(HIGHEST + 1):
        order = np.argsort(ARGUMENTS)
        assert np.all(computed[k] >= 0)
        assert np.all(computed[k] <= (1 + 1e-15) / math.factorial(k))
        # Increasing, up to rounding where the two formulas meet.
        increments = np.diff(computed[k][order])
        assert np.all(increments >= -2e-15 * computed[k][order][1:])


def test_the_definition_ties_them_together(values):
    """phi_(k+1) z = phi_k - 1/k! where it does not cancel."""
    computed, far = values[0], ARGUMENTS < -1
    for k in range(HIGHEST):
        left = computed[k + 1][far] * ARGUMENTS[far]
        np.testing.assert_allclose(left, computed[k][far] - 1 / math.factorial(k), rtol=1e-14)


@pytest.mark.parametrize("highest", [0, 1, 4])
def test_as_many_as_asked_for_in_the_shape_given(highest):
    z = -jnp.arange(12.0).reshape(3, 4)
    functions = phi_functions(z, highest)
    assert [phi.shape for phi in functions] == [(3, 4)] * (highest + 1)
    assert all(phi.dtype == jnp.float64 for phi in functions)
    np.testing.assert_allclose(functions[0], np.exp(z), rtol=1e-14)


def test_derivatives_are_finite_at_zero_and_far_out():
    """phi_1' = phi_1 - phi_2 by the recurrence; at 0 it is 1/2."""
    slope = jax.vmap(jax.grad(lambda z: phi_functions(z, 2)[1]))
    z = jnp.asarray([0.0, -1e-9, -1.9, -2.1, -50.0, -1e12])
    phi = phi_functions(z, 2)
    np.testing.assert_allclose(slope(z), [0.5, *((phi[0] - phi[1]) / z)[1:]], rtol=1e-6)


REST = -np.concatenate(
    [[0.0, 1e-300, 1e-20], np.logspace(-16, 12, 29), np.linspace(0.1, 5, 12), [2 - 1e-5, 2.0, 2 + 1e-5]]
)
DECAYS = np.concatenate([[0.0, 1e-300, 1e-20], np.logspace(-16, 12, 29), np.linspace(0.1, 5, 12)])


def exactly_between(z: float, y: float) -> list[decimal.Decimal]:
    """(phi_k(z) - phi_k(y))/(z - y); where they are as good as equal, of two numbers 1e-45 apart."""
    with decimal.localcontext() as context:
        context.prec = 130
        context.Emin, context.Emax = decimal.MIN_EMIN, decimal.MAX_EMAX
        upper, lower = decimal.Decimal(z), decimal.Decimal(y)
        least = max(abs(upper), decimal.Decimal(1)) * decimal.Decimal(10) ** -45
        upper = upper + least if abs(upper - lower) < least else upper
        pairs = zip(exact(upper, 130), exact(lower, 130), strict=True)
        return [(a - b) / (upper - lower) for a, b in pairs]


def test_divided_differences_have_all_digits():
    """Of arguments that are equal, nearly equal, and 1e12 apart."""
    z, y = REST[:, None] + 0 * DECAYS, REST[:, None] - DECAYS
    found = jax.jit(lambda z, y: divided_phi_functions(z, y, HIGHEST))(jnp.asarray(z), jnp.asarray(y))
    for k in range(HIGHEST + 1):
        np.testing.assert_allclose(found[0][k], phi_functions(jnp.asarray(z), HIGHEST)[k], rtol=1e-14)
        np.testing.assert_allclose(found[1][k], phi_functions(jnp.asarray(y), HIGHEST)[k], rtol=1e-14)
    computed = np.array(found[2])
    assert np.all(computed >= 0)
    worst = np.zeros(HIGHEST + 1)
    for row, column in np.ndindex(z.shape):
        for k, value in enumerate(exactly_between(float(z[row, column]), float(y[row, column]))):
            if value > decimal.Decimal("1e-290"):
                worst[k] = max(worst[k], abs(float(decimal.Decimal(computed[k, row, column]) / value - 1)))
            else:
                assert computed[k, row, column] < 1e-280
    assert np.all(worst < 1e-14), worst
