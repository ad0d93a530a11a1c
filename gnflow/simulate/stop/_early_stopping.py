"""What the rules of early stopping share."""

import abc
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..._core import ConfigError
from ...geometry import Snapshot
from ._base import AbstractStopRule
from ._patience import DECADES_BETWEEN_LOOKS, Lowest


class AbstractEarlyStopping(AbstractStopRule):
    """Stop when a loss of other samples than the training ones has had no new minimum for `decades` of flow time.

    **Attributes:**

    - `samples`: what these samples are called, "test" or "validation".
    """

    bisected: ClassVar[bool] = False
    decades_between_looks: ClassVar[float] = DECADES_BETWEEN_LOOKS
    samples: ClassVar[str]

    decades: eqx.AbstractVar[float]

    @abc.abstractmethod
    def loss(self, snapshot: Snapshot) -> Float[Array, ""]:
        """The loss at a state."""

    def prepare(self, start: Snapshot) -> PyTree:
        """The first loss."""
        if getattr(start.system.problem, f"x_{self.samples}") is None:
            raise ConfigError(
                f"stop = {type(self).__name__} needs {self.samples} data, and the problem has none: give x_{self.samples}, "
                f"y_{self.samples}, or take LossPlateau."
            )
        return Lowest.at_start(self.loss(start), start)

    def update(self, snapshot: Snapshot, memory: PyTree) -> PyTree:
        """The lowest loss and its time."""
        return memory.lowered(self.loss(snapshot), 0.0, snapshot)

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """decades - log10 (t / time of the lowest loss)."""
        return self.decades - memory.decades(snapshot.time)

    def describe(self) -> str:
        """The rule as a clause."""
        return f"the {self.samples} loss had no new minimum for {float(self.decades):.3g} decades of flow time"
