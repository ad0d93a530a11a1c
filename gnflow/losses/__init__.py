"""Convex losses of the outputs, their derivatives, and factors of the output metrics they define."""

from .._core import ConfigError, nearest_name
from ._base import AbstractLoss as AbstractLoss
from ._factors import (
    AbstractOutputFactor as AbstractOutputFactor,
    DiagonalFactor as DiagonalFactor,
    LogisticFactor as LogisticFactor,
    ScaledIdentity as ScaledIdentity,
    SoftmaxFactor as SoftmaxFactor,
)
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
    """The class of the loss that configurations call `kind`; call it to make the loss.

    **Raises:** `ConfigError` for an unknown kind, with the nearest valid one.
    """
    if kind not in loss_kinds:
        raise ConfigError(f"unknown loss {kind!r}; {nearest_name(kind, loss_kinds)}")
    return loss_kinds[kind]
