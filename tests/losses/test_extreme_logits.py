"""Softmax and logistic losses far out, against the textbook's formulas in decimal arithmetic."""

import decimal
from decimal import Decimal

import jax.numpy as jnp
import numpy as np
import pytest

from gnflow.losses import LogisticLoss, SoftmaxCrossEntropy

# e^(+-20000) is an ordinary number here, and what rounding leaves is below 1e-290.
CONTEXT = decimal.Context(prec=300, Emax=10**6, Emin=-(10**6))
LARGEST = Decimal(float(np.finfo(np.float64).max))

SOFTMAX_ROWS = [
    # logits, targets
    ((1e4, -1e4, 0.0), (1, 0, 0)),
    ((1e4, -1e4, 0.0), (0, 1, 0)),
    ((1e3, -1e3, 999.0), (0, 0, 1)),
    ((-1e3, -1e3, -1e3), (0, 1, 0)),
    ((1e3, 0.0, 300.0), (0, 1, 0)),
    ((40.0, 0.0, 1.0), (1, 0, 0)),
    ((80.0, 0.0, -1e4), (1, 0, 0)),
    ((0.0, 80.0, 75.0), (0.25, 0.5, 0.25)),
    ((1e4, 1e4, -1e4), (0.5, 0.5, 0.0)),
]

LOGISTIC_ENTRIES = [
    (f, y) for f in (-1e4, -1e3, -745.5, -40.0, -1e-9, 0.0, 0.5, 36.0, 50.0, 709.5, 1e3, 1e4) for y in (0.0, 0.25, 1.0)
]


@pytest.fixture(autouse=True)
def extended_precision():
    with decimal.localcontext(CONTEXT):
        yield


def as_float(number):
    """To float64: beyond the largest number infinite, below the smallest zero."""
    if abs(number) > LARGEST:
        return np.inf if number > 0 else -np.inf
    return float(number)


def softmax(logits):
    weights = [Decimal(f).exp() for f in logits]
    return [weight / sum(weights) for weight in weights]


def reference_softmax(logits, targets, direction):
    """Of one sample (N = 1): value, gradient, H v, H^+ v, R v, R^T v, whitened gradient; all from their definitions."""
    p, y, v = softmax(logits), [Decimal(t) for t in targets], [Decimal(d) for d in direction]
    classes = range(len(p))
    # 1 - p, without cancellation.
    others = [sum(p[j] for j in classes if j != c) for c in classes]
    gradient = [-others[c] if y[c] == 1 else p[c] - y[c] for c in classes]
    root = [q.sqrt() for q in p]
    mean = sum(p[c] * v[c] for c in classes)
    centre = sum(v) / len(v)
    divided = [(v[c] - centre) / p[c] for c in classes]
    return {
        "value": [sum(y[c] * (1 + others[c] / p[c]).ln() for c in classes)],
        "gradient": gradient,
        "hessian_product": [p[c] * sum(p[j] * (v[c] - v[j]) for j in classes) for c in classes],
        "hessian_pinv_product": [divided[c] - sum(divided) / len(p) for c in classes],
        "product": [
            root[c] * (others[c] * v[c] - root[c] * sum(root[j] * v[j] for j in classes if j != c)) for c in classes
        ],
        "transpose_product": [root[c] * (v[c] - mean) for c in classes],
        "whitened_gradient": [gradient[c] / root[c] for c in classes],
    }


@pytest.mark.parametrize(("logits", "targets"), SOFTMAX_ROWS)
def test_softmax(logits, targets):
    loss = SoftmaxCrossEntropy()
    direction = (0.3, -1.1, 0.45)
    expected = reference_softmax(logits, targets, direction)
    f, y, v = (jnp.asarray([row], dtype=jnp.float64) for row in (logits, targets, direction))
    factor = loss.hessian_factor(f, y)
    actual = {
        "value": loss.value(f, y),
        "gradient": loss.gradient(f, y),
        "hessian_product": loss.hessian_product(f, y, v),
        "hessian_pinv_product": loss.hessian_pinv_product(f, y, v),
        "product": factor.product(v),
        "transpose_product": factor.transpose_product(v),
        "whitened_gradient": loss.hessian_factor(f, y).whiten(loss.gradient(f, y)),
    }
    for name, numbers in expected.items():
        np.testing.assert_allclose(
            np.asarray(actual[name]).reshape(-1),
            [as_float(number) for number in numbers],
            # exp(x) at |x| = 1000 has a relative error of 1000 roundings; below 1e-150 the square root of a vanished
            # probability is zero.
            rtol=1e-12,
            atol=1e-150,
            err_msg=name,
        )


@pytest.mark.parametrize(("logit", "target"), LOGISTIC_ENTRIES)
def test_logistic(logit, target):
    loss = LogisticLoss()
    f, y, v = Decimal(logit), Decimal(target), Decimal("0.75")
    p, q = 1 / (1 + (-f).exp()), 1 / (1 + f.exp())
    root = (p * q).sqrt()
    gradient = (1 - y) * p - y * q
    expected = {
        "value": y * (1 + (-f).exp()).ln() + (1 - y) * (1 + f.exp()).ln(),
        "gradient": gradient,
        "hessian_product": p * q * v,
        "hessian_pinv_product": v / (p * q),
        "product": root * v,
        "transpose_product": root * v,
        "whitened_gradient": gradient / root,
    }
    outputs, targets, direction = (jnp.full((1, 1), number, dtype=jnp.float64) for number in (logit, target, 0.75))
    factor = loss.hessian_factor(outputs, targets)
    actual = {
        "value": loss.value(outputs, targets),
        "gradient": loss.gradient(outputs, targets),
        "hessian_product": loss.hessian_product(outputs, targets, direction),
        "hessian_pinv_product": loss.hessian_pinv_product(outputs, targets, direction),
        "product": factor.product(direction),
        "transpose_product": factor.transpose_product(direction),
        "whitened_gradient": loss.hessian_factor(outputs, targets).whiten(loss.gradient(outputs, targets)),
    }
    for name, number in expected.items():
        np.testing.assert_allclose(
            float(jnp.sum(actual[name])), as_float(number), rtol=1e-12, atol=1e-150, err_msg=name
        )


def test_the_tail_of_a_well_fitted_sample_is_not_rounded_away():
    """At a margin of 60 the loss is e^-60, far below the spacing of floats at 1."""
    tail = float(np.exp(-60.0))
    softmax_loss, logistic_loss = SoftmaxCrossEntropy(), LogisticLoss()
    f, y = jnp.asarray([[60.0, 0.0]]), jnp.asarray([[1.0, 0.0]])
    assert float(softmax_loss.value(f, y)) == pytest.approx(tail, rel=1e-14)
    np.testing.assert_allclose(softmax_loss.gradient(f, y), [[-tail, tail]], rtol=1e-14)
    assert float(logistic_loss.value(f[:, :1], y[:, :1])) == pytest.approx(tail, rel=1e-14)
    np.testing.assert_allclose(logistic_loss.gradient(f[:, :1], y[:, :1]), [[-tail]], rtol=1e-14)
