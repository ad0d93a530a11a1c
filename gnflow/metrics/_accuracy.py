"""The share of samples that are classified correctly."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._core import DataError
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable


class Accuracy(AbstractMetric):
    """The share of correct predictions, between 0 and 1, dimensionless.

    - Softmax cross-entropy: a prediction is correct if output and target are largest at the same class. Outputs that tie
      count as the first class; a network whose output weights start at zero begins so.
    - Logistic loss: a prediction is correct if the output is positive exactly if its target is above 1/2. The share is over
      samples and the C independent labels.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`train_accuracy` and, with such data, `validation_accuracy` and `test_accuracy`.

        **Raises:** `DataError` for a loss whose targets are not classes.
        """
        loss = system.loss
        if not loss.prediction:
            raise DataError(
                f"Accuracy needs classes, but the loss is {type(loss).__name__}; expected SoftmaxCrossEntropy or "
                "LogisticLoss. Leave Accuracy out, or state the problem as a classification."
            )
        problem = system.problem
        known = {"train": problem.y_train, "validation": problem.y_validation, "test": problem.y_test}
        names = [name for name, targets in known.items() if targets is not None]
        return tuple(Variable(f"{name}_accuracy", f"{name} accuracy", "1", loss.prediction) for name in names)

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The accuracies at this state."""
        problem = snapshot.system.problem
        shares = {"train_accuracy": _share(problem.loss.correct(snapshot.train_outputs, problem.y_train))}
        if problem.y_validation is not None:
            correct = problem.loss.correct(snapshot.validation_outputs, problem.y_validation)
            shares["validation_accuracy"] = _share(correct)
        if problem.y_test is not None:
            shares["test_accuracy"] = _share(problem.loss.correct(snapshot.test_outputs, problem.y_test))
        return shares


def _share(correct: Bool[Array, "..."]) -> Float[Array, ""]:
    return jnp.mean(correct, dtype=jnp.float64)
