"""The part that flows made of another flow share."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from .._core import ConfigError, require_instance
from ..geometry import System
from ._base import AbstractFlow


class AbstractWrapper(AbstractFlow):
    """A flow made of another one, with the facts that hold of it because they hold of that.

    **Attributes:** `flow`: the other one.
    """

    flow: eqx.AbstractVar[AbstractFlow]

    @property
    def trainable(self) -> str | tuple[str, ...]:
        """The names of the weights that the wrapped flow moves."""
        return self.flow.trainable

    def has_jumps(self, system: System) -> bool:
        """Whether the velocity of the wrapped flow may jump."""
        return self.flow.dynamics.has_jumps(system)

    def is_smooth(self, system: System) -> bool | None:
        """Whether the wrapped flow is smooth."""
        return self.flow.dynamics.is_smooth(system)

    @property
    def solves_iteratively(self) -> bool:
        """Whether the wrapped flow solves iteratively."""
        return self.flow.dynamics.solves_iteratively

    @property
    def allowed_residual(self) -> float:
        """The allowed residual of the wrapped flow."""
        return self.flow.dynamics.allowed_residual


def converter_of(wrapper: str) -> Callable[[Any], AbstractFlow]:
    """What makes sure that the field of `wrapper` with the other flow holds one. It **raises** `ConfigError`."""
    return lambda value: require_instance(
        ConfigError, f"flow of {wrapper}", value, AbstractFlow, "a flow such as gnflow.flows.GradientFlow()"
    )
