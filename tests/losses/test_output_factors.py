"""What the contract of the losses does not reach: parameters of factors and of Huber's loss, and values by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from gnflow import _core
from gnflow.losses import DiagonalFactor, HuberLoss, LogisticLoss, ScaledIdentity, SoftmaxCrossEntropy, SquaredLoss


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf])
def test_scaled_identity_needs_a_positive_scale(scale):
    with pytest.raises(_core.ConfigError, match=r"expected a finite number above 0"):
        ScaledIdentity(scale)


@pytest.mark.parametrize("scale", [4, 4.0, jnp.asarray(4.0)])
def test_scaled_identity_exposes_its_scale(scale):
    factor = ScaledIdentity(scale)
    assert factor.scale == 4
    v = jnp.asarray([[1.0, -3.0]])
    np.testing.assert_array_equal(factor.product(v), 2 * v)
    np.testing.assert_array_equal(factor.whiten(v), v / 2)


def test_diagonal_factor_does_not_see_zero_roots():
    factor = DiagonalFactor(jnp.asarray([[2.0, 0.0]]))
    np.testing.assert_array_equal(factor.whiten(jnp.asarray([[1.0, 5.0]])), [[0.5, 0.0]])


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf])
def test_huber_needs_a_positive_delta(delta):
    with pytest.raises(_core.ConfigError, match=r"delta = .*SquaredLoss"):
        HuberLoss(delta)


def test_values_by_hand():
    """The normalisation, at numbers that can be checked on paper."""
    f, y = jnp.asarray([[1.0], [4.0]]), jnp.zeros((2, 1))
    assert float(SquaredLoss().value(f, y)) == (1 + 16) / 4
    # 1/2 inside; 2 (4 - 1) = 6 outside. A whole number, as a configuration may give it, is as good as a float.
    assert float(HuberLoss(2).value(f, y)) == (0.5 + 6) / 2
    zeros = jnp.zeros((2, 3))
    assert float(SoftmaxCrossEntropy().value(zeros, jnp.eye(3)[:2])) == pytest.approx(math.log(3))
    assert float(LogisticLoss().value(zeros, jnp.ones((2, 3)))) == pytest.approx(3 * math.log(2))


def test_huber_is_linear_far_out_without_overflow():
    loss, f, y = HuberLoss(0.5), jnp.asarray([[1e200], [-1e200]]), jnp.zeros((2, 1))
    assert float(loss.value(f, y)) == 0.5e200
    np.testing.assert_array_equal(loss.gradient(f, y), [[0.25], [-0.25]])


def test_huber_metrics_outside_the_quadratic_zone():
    """The Hessian metric does not see an outlier; the Fisher metric whitens its gradient."""
    loss, f, y = HuberLoss(1.0), jnp.asarray([[0.5], [7.0]]), jnp.zeros((2, 1))
    whitened = loss.hessian_factor(f, y).whiten(loss.gradient(f, y))
    np.testing.assert_allclose(whitened, [[0.5 / math.sqrt(2)], [0.0]])
    assert float(loss.fisher_factor(f, y).whiten(loss.gradient(f, y))[1, 0]) > 0


@pytest.mark.parametrize("delta", [0.01, 0.5, 1.0, 3.0, 50.0])
def test_huber_fisher_metric_is_the_variance_of_the_score(delta):
    """E[psi^2] under the density exp(-l)/Z, by quadrature over the two pieces."""

    def density(r):
        return math.exp(-(r**2) / 2 if r <= delta else -delta * (r - delta / 2))

    inside = integrate.quad(lambda r: r**2 * density(r), 0, delta)[0], integrate.quad(density, 0, delta)[0]
    # Beyond delta the density falls like exp(-delta r); 50 decay lengths leave 1e-22 of it.
    outside = integrate.quad(density, delta, delta + 50 / delta)[0]
    expected = (inside[0] + delta**2 * outside) / (inside[1] + outside)
    f = jnp.zeros((4, 2))
    assert float(HuberLoss(delta).fisher_factor(f, f).scale) * 4 == pytest.approx(expected, rel=1e-9)
