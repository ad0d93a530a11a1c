"""Stop rules, which say when a run is over."""

from collections.abc import Callable

from ..._core import ConfigError, require_instance
from ._base import AbstractStopRule as AbstractStopRule, evaluate_rules as evaluate_rules
from ._gradient_norm import GradientNorm as GradientNorm
from ._loss_plateau import LossPlateau as LossPlateau
from ._movement import Movement as Movement
from ._relative_loss import RelativeLoss as RelativeLoss
from ._stationary import DENSE_LIMIT as DENSE_LIMIT, Stationary as Stationary
from ._test_loss import TestLoss as TestLoss
from ._time_scale import loss_time_scale as loss_time_scale
from ._validation_loss import ValidationLoss as ValidationLoss
from ._velocity_norm import VelocityNorm as VelocityNorm

stop_kinds: dict[str, Callable[..., AbstractStopRule]] = {
    "relative_loss": RelativeLoss,
    "gradient_norm": GradientNorm,
    "velocity_norm": VelocityNorm,
    "movement": Movement,
    "loss_plateau": LossPlateau,
    "test_loss": TestLoss,
    "validation_loss": ValidationLoss,
    "stationary": Stationary,
}


def stop_rules(stop: object) -> tuple[AbstractStopRule, ...]:
    """`stop` as a tuple of rules. None becomes the empty tuple, a single rule a tuple of one.

    **Raises:** `ConfigError` for anything else.
    """
    listed = () if stop is None else stop if isinstance(stop, tuple | list) else (stop,)
    example = "a stop rule such as gnflow.RelativeLoss(1e-8), several in a tuple, or None"
    return tuple(require_instance(ConfigError, "stop", rule, AbstractStopRule, example) for rule in listed)


def with_stationary(rules: tuple[AbstractStopRule, ...]) -> tuple[AbstractStopRule, ...]:
    """`rules` with `Stationary` added, unless `rules` is empty or contains it already."""
    if not rules or any(isinstance(rule, Stationary) for rule in rules):
        return rules
    return (*rules, Stationary())
