"""What every loss promises, over one list of cases: derivatives, metrics, factors and bounds against dense oracles."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from gnflow.losses import (
    AbstractLoss,
    HuberLoss,
    LogisticLoss,
    SoftmaxCrossEntropy,
    SquaredLoss,
    get_loss,
    loss_kinds,
)


def real(key, shape):
    return jr.normal(key, shape)


def binary(key, shape):
    return jr.bernoulli(key, 0.5, shape).astype(jnp.float64)


def fractions(key, shape):
    return jr.uniform(key, shape)


def one_hot(key, shape):
    return jax.nn.one_hot(jr.randint(key, shape[:1], 0, shape[1]), shape[1], dtype=jnp.float64)


def soft(key, shape):
    return jax.nn.softmax(jr.normal(key, shape))


# name: (loss, maker of targets, (N, C))
CASES = {
    "squared": (SquaredLoss(), real, (4, 3)),
    "squared one output": (SquaredLoss(), real, (5, 1)),
    "softmax one-hot": (SoftmaxCrossEntropy(), one_hot, (4, 3)),
    "softmax soft": (SoftmaxCrossEntropy(), soft, (3, 4)),
    "softmax two classes": (SoftmaxCrossEntropy(), one_hot, (5, 2)),
    "logistic binary": (LogisticLoss(), binary, (4, 3)),
    "logistic soft one output": (LogisticLoss(), fractions, (5, 1)),
    "huber": (HuberLoss(0.7), real, (4, 3)),
    "huber one output": (HuberLoss(), real, (5, 1)),
}

every_case = pytest.mark.parametrize("case", CASES)


def example(case, seed=0):
    """The loss, outputs f, targets y and two directions, (N, C) each; residuals on both sides of Huber's delta."""
    loss, targets, shape = CASES[case]
    k1, k2, k3, k4 = jr.split(jr.key(seed), 4)
    return loss, 2 * jr.normal(k1, shape), targets(k2, shape), jr.normal(k3, shape), jr.normal(k4, shape)


def dense(apply, shape):
    """The matrix of a linear map on (N, C) arrays, (NC, NC)."""
    basis = jnp.eye(shape[0] * shape[1]).reshape(-1, *shape)
    return np.asarray(jax.jit(jax.vmap(apply))(basis)).reshape(len(basis), -1).T


def dense_hessian(loss, f, y):
    size = f.size
    return np.asarray(jax.jit(jax.hessian(loss.value))(f, y)).reshape(size, size)


def assert_close(actual, expected, rtol=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * max(1e-300, np.max(np.abs(expected))))


def test_every_kind_of_loss_is_a_case():
    assert {type(loss) for loss, _, _ in CASES.values()} == set(loss_kinds.values())
    assert all(isinstance(get_loss(kind)(), AbstractLoss) for kind in loss_kinds)


@every_case
def test_gradient_is_the_derivative_of_the_value(case):
    loss, f, y, _, _ = example(case)
    assert_close(loss.gradient(f, y), jax.jit(jax.grad(loss.value))(f, y))


@every_case
def test_hessian_product_is_the_derivative_of_the_gradient(case):
    loss, f, y, v, _ = example(case)
    _, expected = jax.jit(lambda primal, tangent: jax.jvp(lambda u: loss.gradient(u, y), (primal,), (tangent,)))(f, v)
    assert_close(loss.hessian_product(f, y, v), expected)
    assert_close(dense(lambda u: loss.hessian_product(f, y, u), f.shape), dense_hessian(loss, f, y))


@every_case
def test_hessian_pinv_product_is_the_moore_penrose_inverse(case):
    loss, f, y, _, _ = example(case)
    expected = np.linalg.pinv(dense_hessian(loss, f, y), rcond=1e-10, hermitian=True)
    assert_close(dense(lambda u: loss.hessian_pinv_product(f, y, u), f.shape), expected, rtol=1e-10)


@every_case
def test_hessian_factor_squares_to_the_hessian(case):
    loss, f, y, _, _ = example(case)
    root = dense(loss.hessian_factor(f, y).product, f.shape)
    assert_close(root @ root.T, dense_hessian(loss, f, y))


@every_case
@pytest.mark.parametrize("metric", ["hessian_factor", "fisher_factor"])
def test_transpose_product_is_the_transpose(case, metric):
    loss, f, y, _, _ = example(case)
    factor = getattr(loss, metric)(f, y)
    assert_close(dense(factor.transpose_product, f.shape), dense(factor.product, f.shape).T)


@every_case
@pytest.mark.parametrize("metric", ["hessian_factor", "fisher_factor"])
def test_whiten_is_the_least_norm_least_squares_solution(case, metric):
    loss, f, y, _, _ = example(case)
    factor = getattr(loss, metric)(f, y)
    gradient = loss.gradient(f, y)
    root = dense(factor.product, f.shape)
    expected = np.linalg.lstsq(root, np.asarray(gradient).reshape(-1), rcond=1e-10)[0].reshape(f.shape)
    assert_close(factor.whiten(gradient), expected, rtol=1e-10)


@every_case
def test_what_is_not_whitened_is_unseen(case):
    """R h + u = g for the gradient and for any other vector, and u = 0 where the loss says so."""
    loss, f, y, v, _ = example(case)
    factors = {"hessian": loss.hessian_factor(f, y), "fisher": loss.fisher_factor(f, y)}
    for name, factor in factors.items():
        for g in (loss.gradient(f, y), v):
            assert_close(factor.product(factor.whiten(g)) + factor.unseen(g), g)
        left = float(jnp.max(jnp.abs(factor.unseen(loss.gradient(f, y)))))
        if name == "fisher" or loss.gradient_in_hessian_image:
            assert left < 1e-15
        else:
            assert left > 1e-3


@every_case
def test_whitened_gradient_is_the_gradient_seen_through_the_factor(case):
    loss, f, y, _, _ = example(case)
    recovered = loss.hessian_factor(f, y).product(loss.hessian_factor(f, y).whiten(loss.gradient(f, y)))
    # Huber's gradient has a part outside the Hessian's image, where the Hessian, and so the right side, is zero.
    in_image = dense_hessian(loss, f, y).any(axis=1).reshape(f.shape)
    assert_close(recovered, jnp.where(in_image, loss.gradient(f, y), 0.0))


@pytest.mark.parametrize(
    "case", ["squared", "softmax one-hot", "softmax soft", "logistic binary", "logistic soft one output"]
)
def test_fisher_metric_of_an_exponential_family_is_the_hessian(case):
    loss, f, y, v, _ = example(case)
    factor = loss.fisher_factor(f, y)
    assert_close(factor.product(factor.transpose_product(v)), loss.hessian_product(f, y, v))


@every_case
def test_curvature_lies_between_mu_and_lambda(case):
    loss, targets, shape = CASES[case]
    y = targets(jr.key(1), shape)
    low, high = loss.strong_convexity(shape[0]), loss.smoothness(shape[0])
    assert 0 <= low <= high
    basis = jnp.eye(y.size).reshape(-1, *shape)

    @jax.jit
    def hessian(outputs):
        return jax.vmap(lambda u: loss.hessian_product(outputs, y, u))(basis).reshape(y.size, y.size)

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(hnp.arrays(np.float64, shape, elements=st.floats(-8, 8)))
    def check(f):
        eigenvalues = np.linalg.eigvalsh(hessian(jnp.asarray(f)))
        rounding = 1e-14 * high
        assert eigenvalues[0] >= low - rounding
        assert eigenvalues[-1] <= high + rounding

    check()


@pytest.mark.parametrize("case", ["squared", "softmax two classes", "logistic binary", "huber"])
def test_lambda_is_attained(case):
    loss, _, shape = CASES[case]
    # Equal outputs: p = 1/2 and residuals of zero.
    f = y = jnp.zeros(shape)
    eigenvalues = np.linalg.eigvalsh(dense(lambda u: loss.hessian_product(f, y, u), shape))
    assert_close(eigenvalues[-1], loss.smoothness(shape[0]))


@every_case
def test_mu_and_lambda_bound_the_loss_by_its_gradient(case):
    """2 mu (L - L*) <= ||g||^2 <= 2 lambda (L - L*) (docs/theory.md), the form in which the theorems use them."""
    loss, _, shape = CASES[case]
    for seed in range(5):
        _, f, y, _, _ = example(case, seed)
        gap = float(loss.value(f, y) - loss.minimum(y))
        square = float(jnp.sum(loss.gradient(f, y) ** 2))
        assert 2 * loss.strong_convexity(shape[0]) * gap <= square * (1 + 1e-12)
        assert square <= 2 * loss.smoothness(shape[0]) * gap * (1 + 1e-12)


# The outputs at which the infimum is attained, or (for hard labels) approached up to exp(-40).
MINIMISERS = {
    "squared": lambda y: y,
    "squared one output": lambda y: y,
    "softmax one-hot": lambda y: 40 * y,
    "softmax soft": jnp.log,
    "softmax two classes": lambda y: 40 * y,
    "logistic binary": lambda y: 40 * (2 * y - 1),
    "logistic soft one output": lambda y: jnp.log(y) - jnp.log1p(-y),
    "huber": lambda y: y,
    "huber one output": lambda y: y,
}


@every_case
def test_minimum_is_a_lower_bound_and_the_greatest_one(case):
    loss, f, y, v, _ = example(case)
    minimum = float(loss.minimum(y))
    nearest = MINIMISERS[case](y)
    assert float(loss.value(nearest, y)) == pytest.approx(minimum, rel=1e-13, abs=1e-15)
    for outputs in (f, nearest + 0.1 * v, v):
        assert float(loss.value(outputs, y)) > minimum


@every_case
def test_mean_over_samples(case):
    """Repeating the data leaves the value as it is, and halves the gradient at each copy."""
    loss, f, y, _, _ = example(case)
    twice = (jnp.concatenate([f, f]), jnp.concatenate([y, y]))
    assert_close(jax.jit(loss.value)(*twice), loss.value(f, y))
    assert_close(jax.jit(loss.gradient)(*twice)[: len(f)], loss.gradient(f, y) / 2)
    assert_close(loss.minimum(twice[1]), loss.minimum(y))


@every_case
def test_canonical_targets_are_a_fixed_point(case):
    loss, f, y, _, _ = example(case)
    train, test = loss.canonical_targets(y, y[:2])
    assert train.dtype == jnp.float64
    assert train.shape == f.shape
    assert_close(train, y)
    assert_close(test, y[:2])
    assert loss.canonical_targets(np.asarray(y).tolist())[1] is None


@every_case
def test_works_under_jit_and_vmap(case):
    loss, f, y, v, u = example(case)

    @jax.jit
    @jax.vmap
    def everything(outputs):
        factor = loss.fisher_factor(outputs, y)
        return (
            loss.value(outputs, y),
            loss.gradient(outputs, y),
            loss.hessian_product(outputs, y, v),
            loss.hessian_pinv_product(outputs, y, v),
            loss.hessian_factor(outputs, y).whiten(loss.gradient(outputs, y)),
            factor.product(u),
        )

    batched = everything(jnp.stack([f, v]))
    for outputs, row in ((f, 0), (v, 1)):
        factor = loss.fisher_factor(outputs, y)
        assert_close(batched[0][row], loss.value(outputs, y))
        assert_close(batched[1][row], loss.gradient(outputs, y))
        assert_close(batched[2][row], loss.hessian_product(outputs, y, v))
        assert_close(batched[3][row], loss.hessian_pinv_product(outputs, y, v))
        assert_close(batched[4][row], loss.hessian_factor(outputs, y).whiten(loss.gradient(outputs, y)))
        assert_close(batched[5][row], factor.product(u))


@every_case
def test_no_nan_far_out(case):
    """Logits of +-1e4: infinite only where the true number is (the inverse of a vanishing curvature)."""
    loss, f, y, v, _ = example(case)
    far_gradient = jax.jit(jax.grad(loss.value))
    for sign in (1.0, -1.0):
        far = sign * 1e4 * jnp.sign(f)
        hessian_factor, fisher_factor = loss.hessian_factor(far, y), loss.fisher_factor(far, y)
        finite = [
            loss.value(far, y),
            loss.gradient(far, y),
            far_gradient(far, y),
            loss.hessian_product(far, y, v),
            hessian_factor.product(v),
            hessian_factor.transpose_product(v),
            fisher_factor.product(v),
            fisher_factor.transpose_product(v),
        ]
        assert all(bool(jnp.all(jnp.isfinite(array))) for array in finite)
        perhaps_infinite = [
            loss.hessian_pinv_product(far, y, v),
            loss.hessian_pinv_product(far, y, jnp.zeros_like(v)),
            loss.hessian_factor(far, y).whiten(loss.gradient(far, y)),
            fisher_factor.whiten(loss.gradient(far, y)),
        ]
        assert not any(bool(jnp.any(jnp.isnan(array))) for array in perhaps_infinite)
        assert not jnp.any(perhaps_infinite[1])


def sample_values(loss, f, y):
    """l(f_n, y_n) for each sample, (N,)."""
    return jax.vmap(lambda outputs, target: loss.value(outputs[None], target[None]))(f, y)


def dual_variables(loss, f, y):
    """grad l(f_n, y_n) for each sample, (N, C): no mean."""
    return f.shape[0] * loss.gradient(f, y)


@every_case
def test_fenchel_and_young_agree_at_the_gradient_and_nowhere_else(case):
    loss, f, y, v, _ = example(case)
    alpha = dual_variables(loss, f, y)
    pairing = jnp.sum(alpha * f, axis=1)
    assert bool(jnp.all(loss.in_conjugate_domain(alpha, y)))
    np.testing.assert_allclose(sample_values(loss, f, y) + loss.conjugate(alpha, y), pairing, rtol=1e-13, atol=1e-14)
    for other in (dual_variables(loss, f + v, y), jnp.zeros_like(f) if case == "softmax soft" else alpha / 2):
        gap = sample_values(loss, f, y) + loss.conjugate(other, y) - jnp.sum(other * f, axis=1)
        assert bool(jnp.all(gap >= -1e-14))
        assert float(jnp.max(gap)) > 1e-3


@every_case
def test_the_gradient_of_the_conjugate_inverts_the_gradient(case):
    loss, f, y, _, _ = example(case)
    alpha = dual_variables(loss, f, y)
    outputs = loss.conjugate_gradient(alpha, y)
    np.testing.assert_allclose(dual_variables(loss, outputs, y), alpha, rtol=1e-12, atol=1e-14)
    if isinstance(loss, SoftmaxCrossEntropy):
        f = f - jnp.mean(f, axis=1, keepdims=True)  # the representative that sums to zero
    if isinstance(loss, HuberLoss):
        f = y + jnp.clip(f - y, -loss.delta, loss.delta)  # the one nearest to the targets
    np.testing.assert_allclose(outputs, f, rtol=1e-11, atol=1e-11)


@every_case
def test_the_conjugate_is_the_supremum(case):
    loss, f, y, _, _ = example(case)
    alpha = 0.8 * dual_variables(loss, f, y)  # inside the domain, which is convex and holds 0

    @jax.jit
    def negative(vector, alpha, target):
        outputs = vector.reshape(target.shape)
        return loss.value(outputs[None], target[None]) - jnp.sum(alpha * outputs)

    slope = jax.jit(jax.grad(negative))
    for n in range(len(y)):
        found = scipy.optimize.minimize(negative, np.zeros(y.shape[1]), (alpha[n], y[n]), jac=slope, tol=1e-9)
        assert float(loss.conjugate(alpha, y)[n]) == pytest.approx(-found.fun, rel=1e-7, abs=1e-9)


def test_the_domain_of_the_conjugate():
    y, labels = jnp.asarray([[1.0, 0.0, 0.0]]), jnp.asarray([[1.0, 0.0]])
    outside = [
        (SoftmaxCrossEntropy(), y, jnp.asarray([[-0.5, 0.6, -0.1]])),  # a negative probability
        (SoftmaxCrossEntropy(), y, jnp.asarray([[-0.5, 0.5, 0.1]])),  # does not sum to one
        (LogisticLoss(), labels, jnp.asarray([[-1.1, 0.5]])),
        (LogisticLoss(), labels, jnp.asarray([[0.1, 0.5]])),
        (HuberLoss(0.7), labels, jnp.asarray([[0.71, 0.0]])),
    ]
    for loss, targets, alpha in outside:
        assert not bool(loss.in_conjugate_domain(alpha, targets)[0])
        assert float(loss.conjugate(alpha, targets)[0]) == np.inf
        assert bool(jnp.all(jnp.isnan(loss.conjugate_gradient(alpha, targets))))
    edges = [
        (SoftmaxCrossEntropy(), y, jnp.asarray([[-1.0, 0.25, 0.75]]), 0.25 * np.log(0.25) + 0.75 * np.log(0.75)),
        (SoftmaxCrossEntropy(), y, jnp.zeros((1, 3)), 0.0),
        (LogisticLoss(), labels, jnp.asarray([[-1.0, 0.0]]), 0.0),
        (HuberLoss(0.7), labels, jnp.asarray([[0.7, -0.7]]), 0.7**2 + 0.7),
    ]
    for loss, targets, alpha, expected in edges:
        assert bool(loss.in_conjugate_domain(alpha, targets)[0])
        np.testing.assert_allclose(loss.conjugate(alpha, targets), [expected], rtol=1e-15)
    np.testing.assert_array_equal(
        SoftmaxCrossEntropy().conjugate_gradient(edges[0][2], y), jnp.asarray([[-jnp.inf, jnp.inf, jnp.inf]])
    )
    np.testing.assert_array_equal(LogisticLoss().conjugate_gradient(edges[2][2], labels), [[-jnp.inf, -jnp.inf]])
    assert bool(jnp.all(SquaredLoss().in_conjugate_domain(1e9 * y, y)))


@pytest.mark.parametrize("logit", [40.0, 300.0])
def test_conjugates_are_accurate_next_to_the_edge(logit):
    """A sample that is fitted well: p is one to the last digit, and alpha says how far it is."""
    f, y = jnp.asarray([[logit, 0.0]]), jnp.asarray([[1.0, 0.0]])
    distance = np.exp(-logit)
    loss = SoftmaxCrossEntropy()
    alpha = dual_variables(loss, f, y)
    np.testing.assert_allclose(loss.conjugate(alpha, y), [-distance * (logit + 1)], rtol=1e-12)
    np.testing.assert_allclose(loss.conjugate_gradient(alpha, y), [[logit / 2, -logit / 2]], rtol=1e-14)
    loss, f = LogisticLoss(), jnp.asarray([[logit, -logit]])
    alpha = dual_variables(loss, f, y)
    np.testing.assert_allclose(loss.conjugate(alpha, y), [-2 * distance * (logit + 1)], rtol=1e-12)
    np.testing.assert_allclose(loss.conjugate_gradient(alpha, y), f, rtol=1e-14)
