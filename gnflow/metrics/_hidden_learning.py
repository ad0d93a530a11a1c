"""Hidden learning of [A]: the quality of the features for the best output layer."""

from jaxtyping import Array, Float, PyTree

from .._core import DataError, in_batches
from ..geometry import Snapshot, System, TruncatedInverse
from ._base import AbstractMetric, Variable
from ._hidden_layer import hidden_features, require_hidden_features

# Eigenvalues of the features' Gram matrix up to this share of the largest count as zero, as in the released code of [A].
_CUTOFF = 1e-10


class HiddenLearning(AbstractMetric):
    """Train and test loss after the output layer has been refitted to the present features.

    The last hidden layer Phi (N, k) is frozen, and the output layer is the minimum-norm least-squares solution

        V = Phi^T (Phi Phi^T)^+ y,    f(x) = phi(x) V,

    where eigenvalues of the N x N matrix Phi Phi^T up to 1e-10 times the largest count as zero. As in [A] the readout is linear
    in the features and has no bias. A low refitted test loss beside a high test loss is called hidden learning.

    The loss is 1/(2N) ||f - y||^2. Source: [A] Arbel et al. 2023, arXiv 2302.02904, experiments.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`refit_train_loss` and, with test data, `refit_test_loss`.

        **Raises:** `DataError` unless the loss is the squared loss, `ModelError` for a model without `hidden_features`.
        """
        loss = system.loss
        if not loss.is_squared_distance:
            raise DataError(
                f"HiddenLearning refits by least squares, but the loss is {type(loss).__name__}; expected SquaredLoss. "
                "Leave HiddenLearning out, or state the problem as a regression."
            )
        require_hidden_features(system, "HiddenLearning")
        names = ("train",) if system.problem.x_test is None else ("train", "test")
        return tuple(
            Variable(
                f"refit_{name}_loss",
                f"{name} loss after refitting the output layer",
                "1",
                "Arbel et al. 2023 (arXiv 2302.02904), experiments",
            )
            for name in names
        )

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The losses, by one eigendecomposition of size N."""
        system, problem = snapshot.system, snapshot.system.problem
        features = hidden_features(system, snapshot.weights, problem.x_train)
        readout = features.T @ TruncatedInverse.of(features @ features.T).solve(problem.y_train, _CUTOFF)
        losses = {"refit_train_loss": system.loss.value(features @ readout, problem.y_train)}
        if problem.x_test is not None and problem.y_test is not None:
            model = system.model(snapshot.weights)
            test_outputs = in_batches(lambda x: model.hidden_features(x) @ readout, problem.x_test)
            losses["refit_test_loss"] = system.loss.value(test_outputs, problem.y_test)
        return losses
