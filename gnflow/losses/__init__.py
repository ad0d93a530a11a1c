"""Convex losses of the outputs, their derivatives, and factors of the output metrics that they define."""

from .._core import look_up
from ._base import AbstractLoss as AbstractLoss
from ._block_factor import BlockFactor as BlockFactor
from ._conjugates import AbstractConjugate as AbstractConjugate
from ._factors import (
    AbstractOutputFactor as AbstractOutputFactor,
    DiagonalFactor as DiagonalFactor,
    LogisticFactor as LogisticFactor,
    ScaledIdentity as ScaledIdentity,
    SoftmaxFactor as SoftmaxFactor,
)
from ._from_function import FunctionLoss as FunctionLoss, from_function as from_function
from ._huber import HuberLoss as HuberLoss
from ._logistic import LogisticLoss as LogisticLoss
from ._softmax import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from ._squared import SquaredLoss as SquaredLoss

loss_kinds: dict[str, type[AbstractLoss]] = {
    "squared": SquaredLoss,
    "softmax_cross_entropy": SoftmaxCrossEntropy,
    "logistic": LogisticLoss,
    "huber": HuberLoss,
}


def get_loss(kind: str) -> type[AbstractLoss]:
    """The class of the loss that configurations call `kind`. Call the class to make a loss.

    **Raises:** `ConfigError` for an unknown kind, with the nearest valid one.
    """
    return look_up(kind, loss_kinds, "loss")
