"""Targets as users have them: what becomes canonical, and what is refused with a remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnflow import _core
from gnflow.losses import HuberLoss, LogisticLoss, SoftmaxCrossEntropy, SquaredLoss, get_loss

REGRESSION = [SquaredLoss(), HuberLoss()]
EVERY = [*REGRESSION, SoftmaxCrossEntropy(), LogisticLoss()]


def name(loss):
    return type(loss).__name__


@pytest.mark.parametrize("loss", REGRESSION, ids=name)
def test_regression_targets(loss):
    train, test = loss.canonical_targets(np.array([1.5, -2.0], dtype=np.float32), [[3.0]])
    assert (train.dtype, test.dtype) == (jnp.float64, jnp.float64)
    np.testing.assert_array_equal(train, [[1.5], [-2.0]])
    np.testing.assert_array_equal(test, [[3.0]])
    wide, none = loss.canonical_targets(jnp.ones((3, 2)), None)
    assert wide.shape == (3, 2)
    assert none is None


def test_softmax_labels_become_one_hot():
    train, test = SoftmaxCrossEntropy().canonical_targets(np.array([0, 2, 0], dtype=np.uint8), [1])
    np.testing.assert_array_equal(train, [[1, 0, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(test, [[0, 1, 0]])
    assert (train.dtype, test.dtype) == (jnp.float64, jnp.float64)


def test_softmax_counts_the_classes_of_train_and_test():
    train, test = SoftmaxCrossEntropy().canonical_targets([0, 1], [3])
    assert train.shape == (2, 4)
    assert test.shape == (1, 4)


@pytest.mark.parametrize("labels", [[0, 0], [False, False], [False, True]])
def test_softmax_has_at_least_two_classes(labels):
    assert SoftmaxCrossEntropy().canonical_targets(labels)[0].shape == (2, 2)


def test_softmax_soft_train_labels_with_hard_test_labels():
    train, test = SoftmaxCrossEntropy().canonical_targets([[0.2, 0.3, 0.5]], [1, 0])
    np.testing.assert_array_equal(train, [[0.2, 0.3, 0.5]])
    np.testing.assert_array_equal(test, [[0, 1, 0], [1, 0, 0]])


def test_softmax_float32_rows_sum_to_one_in_float64():
    """Else the gradient would have a component along 1, outside the image of the Hessian."""
    rows = np.array([[0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]], dtype=np.float32)
    assert np.max(np.abs(rows.astype(np.float64).sum(axis=1) - 1)) > 1e-9
    train, _ = SoftmaxCrossEntropy().canonical_targets(rows)
    np.testing.assert_allclose(np.sum(train, axis=1), 1, rtol=3e-16)
    np.testing.assert_allclose(train, rows, rtol=1e-7)


@pytest.mark.parametrize("labels", [[0, 1], [False, True], [0.0, 1.0]])
def test_logistic_labels(labels):
    train, test = LogisticLoss().canonical_targets(labels, [[0.25]])
    np.testing.assert_array_equal(train, [[0], [1]])
    np.testing.assert_array_equal(test, [[0.25]])
    assert train.dtype == jnp.float64


REFUSED_BY_EVERY_LOSS = {
    "text": (["a", "b"], "dtype <U1"),
    "objects": ([None, None], "dtype object"),
    "complex numbers": ([1j, 0j], "dtype complex128"),
    "ragged rows": ([[0.0, 1.0], [1.0]], "cannot be made an array"),
    "a number": (1.0, r"shape \(\)"),
    "three dimensions": (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
    "no samples": (np.zeros((0, 2)), r"shape \(0, 2\)"),
    "no samples, no columns": (np.zeros(0), r"shape \(0,\)"),
    "no columns": (np.zeros((2, 0)), r"shape \(2, 0\)"),
    "NaN": ([[1.0, 0.0], [0.0, np.nan]], "not finite in row 1"),
    "infinity": ([[np.inf, 0.0], [0.0, 1.0]], "not finite in row 0"),
}


@pytest.mark.parametrize("loss", EVERY, ids=name)
@pytest.mark.parametrize("case", REFUSED_BY_EVERY_LOSS)
def test_refused_by_every_loss(loss, case):
    targets, message = REFUSED_BY_EVERY_LOSS[case]
    with pytest.raises(_core.DataError, match=f"y_train.*{message}"):
        loss.canonical_targets(targets)
    with pytest.raises(_core.DataError, match=f"y_test.*{message}"):
        loss.canonical_targets(np.eye(2), targets) if loss not in REGRESSION else loss.canonical_targets([0.5], targets)


@pytest.mark.parametrize("loss", EVERY, ids=name)
def test_train_and_test_need_the_same_columns(loss):
    with pytest.raises(_core.DataError, match="y_train has 2 columns but y_test has 3"):
        loss.canonical_targets(np.eye(2), np.eye(3))


@pytest.mark.parametrize("loss", EVERY, ids=name)
def test_refused_in_single_precision(loss):
    with jax.enable_x64(False), pytest.raises(_core.PrecisionError, match="y_train needs float64"):
        loss.canonical_targets(np.eye(2))


@pytest.mark.parametrize("loss", REGRESSION, ids=name)
@pytest.mark.parametrize("targets", [[0, 1, 2], [[1, 0], [0, 1]], [True, False], np.zeros(2, dtype=np.uint8)])
def test_regression_refuses_integers(loss, targets):
    with pytest.raises(
        _core.DataError, match=rf"y_train has dtype .*{name(loss)}.*SoftmaxCrossEntropy.*astype\(float\)"
    ):
        loss.canonical_targets(targets)
    with pytest.raises(_core.DataError, match="y_test has dtype"):
        loss.canonical_targets([0.5], targets)


REFUSED_BY_SOFTMAX = {
    "labels as floats": ([0.0, 1.0], None, r"y_train .*float64.*astype\(int\)"),
    "test labels as floats": ([0, 1], [0.5], "y_test .*integers"),
    "negative label": ([0, -1], None, "y_train holds the label -1"),
    "one column": ([[1.0], [1.0]], None, r"shape \(2, 1\).*LogisticLoss"),
    "labels as a column": ([[0], [1]], None, r"reshape\(-1\)"),
    "negative probability": ([[0.5, 0.5], [1.5, -0.5]], None, "holds -0.5 in row 1"),
    "sum beyond one": ([[0.5, 0.5], [1.0, 1.0]], None, "sums to 2.0 in row 1"),
    "sum below one": ([[0.5, 0.4], [1.0, 0.0]], None, "sums to 0.9 in row 0"),
    "label beyond the columns": ([[1.0, 0.0]], [2], "y_test holds the label 2.*2 columns.*0..1"),
    "train label beyond the test columns": ([3], [[1.0, 0.0]], "y_train holds the label 3"),
}


@pytest.mark.parametrize("case", REFUSED_BY_SOFTMAX)
def test_refused_by_softmax(case):
    train, test, message = REFUSED_BY_SOFTMAX[case]
    with pytest.raises(_core.DataError, match=message):
        SoftmaxCrossEntropy().canonical_targets(train, test)


@pytest.mark.parametrize("targets", [[-1, 1], [0, 2], [0.5, 1.01], [[-0.1]]])
def test_logistic_refuses_what_is_no_probability(targets):
    with pytest.raises(_core.DataError, match=r"y_train ranges from .* SoftmaxCrossEntropy"):
        LogisticLoss().canonical_targets(targets)
    with pytest.raises(_core.DataError, match="y_test ranges from"):
        LogisticLoss().canonical_targets(np.zeros(np.shape(targets)), targets)


def test_get_loss_suggests_the_nearest_name():
    with pytest.raises(
        _core.ConfigError, match=r"'sqared'; did you mean 'squared'.*huber, logistic, softmax_cross_entropy"
    ):
        get_loss("sqared")
