"""The two tasks of a data set with classes: to classify, or to fit one-hot rows by regression."""

from typing import Literal

from .._core import look_up
from ..losses import AbstractLoss, SoftmaxCrossEntropy, SquaredLoss

Task = Literal["classification", "regression"]

_LOSSES: dict[str, type[AbstractLoss]] = {"classification": SoftmaxCrossEntropy, "regression": SquaredLoss}


def loss_of_task(task: str) -> AbstractLoss:
    """The softmax cross-entropy for "classification", the squared loss for "regression".

    **Raises:** `ConfigError` for an unknown task, with the nearest valid one.
    """
    return look_up(task, _LOSSES, "task")()
