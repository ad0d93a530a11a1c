"""What a run in discrete steps says of its precision."""

from typing import Any

from jaxtyping import PyTree

from ..geometry import System
from ..models import SinglePrecision
from ..models._single_precision import in_single_precision


def precision_stats(system: System, weights: PyTree) -> dict[str, Any]:
    """The precision of a model that is evaluated in float32, and what it does to the loss; empty for one in float64.

    `single_precision_error` is |L32 - L64|/L64, with the last training loss in float32 and in float64 at the same weights.
    """
    model = system.model(weights)
    if not in_single_precision(model):
        return {}
    stats: dict[str, Any] = {"precision": "float32"}
    if isinstance(model, SinglePrecision):
        whole = System(system.problem, model.model)
        loss = float(whole.train_loss(whole.weights(model.model)))
        stats["single_precision_error"] = abs(float(system.train_loss(weights)) - loss) / loss if loss else 0.0
    return stats
