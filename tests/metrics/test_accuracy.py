"""Accuracy: classes, labels and what it refuses."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from gnflow._core import DataError
from gnflow.geometry import System
from gnflow.losses import HuberLoss, LogisticLoss, SoftmaxCrossEntropy
from gnflow.metrics import Accuracy
from gnflow.problems import Problem


class _Scores(eqx.Module):
    """f(x) = W x: with W = I the inputs are the outputs."""

    weight: jnp.ndarray

    def __call__(self, x):
        return self.weight @ x


def _measure(measure, loss, outputs, targets, *test, **validation):
    model = _Scores(jnp.eye(outputs.shape[1]))
    system = System(Problem(outputs, targets, *test, loss=loss, **validation), model)
    return {name: float(value) for name, value in measure(Accuracy(), system, system.weights(model)).items()}


def test_the_class_of_the_largest_output(measure):
    outputs = np.array([[-3.0, -1.0, -2.0], [5.0, 4.0, 4.5], [0.0, 0.1, 0.2], [1.0, 1.0, 1.0]])
    # Right, right, wrong, and a tie, which counts as class 0.
    found = _measure(measure, SoftmaxCrossEntropy(), outputs, np.array([1, 0, 0, 0]), outputs[:2], np.array([2, 0]))
    assert found == {"train_accuracy": 0.75, "test_accuracy": 0.5}


def test_validation_data_have_an_accuracy_of_their_own(measure):
    outputs = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    validation = {"x_validation": outputs, "y_validation": np.array([0, 0, 1])}
    found = _measure(measure, SoftmaxCrossEntropy(), outputs, np.array([0, 1, 1]), outputs[:1], [1], **validation)
    assert found == {"train_accuracy": 1.0, "validation_accuracy": pytest.approx(2 / 3), "test_accuracy": 0.0}


def test_soft_labels_count_as_their_likeliest_class(measure):
    outputs, targets = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[0.4, 0.6], [0.6, 0.4]])
    assert _measure(measure, SoftmaxCrossEntropy(), outputs, targets) == {"train_accuracy": 0.5}


@pytest.mark.parametrize("labels", [np.array([1, 0, 1, 1]), np.array([0.7, 0.2, 0.9, 1.0])], ids=["hard", "soft"])
def test_the_sign_of_one_logit(labels, measure):
    # Wrong, right (0 is not positive), right, right.
    outputs = np.array([[-0.1], [0.0], [2.0], [0.1]])
    assert _measure(measure, LogisticLoss(), outputs, labels) == {"train_accuracy": 0.75}


def test_independent_labels_count_one_by_one(measure):
    """Two labels of one sample may both be true; the largest logit says nothing about that."""
    outputs, targets = np.array([[3.0, 1.0], [-2.0, -1.0]]), np.array([[1, 1], [0, 1]])
    assert _measure(measure, LogisticLoss(), outputs, targets) == {"train_accuracy": 0.75}


def test_regression_has_no_accuracy():
    x = jr.normal(jr.key(0), (3, 2))
    system = System(Problem(x, x, loss=HuberLoss(1.0)), _Scores(jnp.eye(2)))
    with pytest.raises(DataError, match="HuberLoss; expected SoftmaxCrossEntropy or LogisticLoss"):
        Accuracy().variables(system)
