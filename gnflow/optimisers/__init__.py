"""Optimisers, by which `gnflow.iterate` turns directions into steps, with a memory of earlier steps."""

from collections.abc import Callable
from typing import Any

from ._adam import Adam as Adam
from ._adaptive_gamma import AdaptiveGamma as AdaptiveGamma
from ._base import AbstractOptimiser as AbstractOptimiser
from ._dual_gauss_newton import (
    DualGaussNewtonState as DualGaussNewtonState,
    dual_gauss_newton as dual_gauss_newton,
)
from ._dual_step import DualGaussNewton as DualGaussNewton
from ._line_search import LineSearch as LineSearch
from ._optax import Optax as Optax, as_optimiser as as_optimiser
from ._schedules import (
    AbstractSchedule as AbstractSchedule,
    CosineDecay as CosineDecay,
    ExponentialDecay as ExponentialDecay,
)
from ._sgd import SGD as SGD

optimiser_kinds: dict[str, Callable[..., Any]] = {
    "sgd": SGD,
    "adam": Adam,
    "line_search": LineSearch,
    "dual_gauss_newton": DualGaussNewton,
}
gamma_kinds: dict[str, Callable[..., Any]] = {"adaptive": AdaptiveGamma}
schedule_kinds: dict[str, Callable[..., Any]] = {"cosine_decay": CosineDecay, "exponential_decay": ExponentialDecay}
