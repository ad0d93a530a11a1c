"""A training loss that falls no more."""

from typing import ClassVar

from jaxtyping import Array, Float, PyTree

from ...geometry import Snapshot
from ._base import AbstractStopRule, positive_field
from ._patience import DECADES_BETWEEN_LOOKS, Lowest
from ._time_scale import excess_loss


class LossPlateau(AbstractStopRule):
    """Stop when L - L* has not fallen by the share `fall` within `decades` of flow time.

    With decades = 1: when at some t the loss is above (1 - fall) times what it was at t/10. The clock starts at the time scale
    (L - L*)/|dL/dt| of the first decrease, so that a slow start does not count; or, where that is sooner, at the time in which
    the loss would vanish at its mean rate so far (from a saddle of small weights the first rate says nothing). A saddle may
    look like a plateau: one decade is more than most, but not more than all of them. Looked at after accepted steps; in
    `iterate` after the saved steps, where time is step * step_size, or the number of steps where there is an optimiser: a
    decade is ten times as many steps.

    **Raises:** `ConfigError` unless both numbers are positive and finite, and fall < 1.
    """

    bisected: ClassVar[bool] = False
    decades_between_looks: ClassVar[float] = DECADES_BETWEEN_LOOKS

    decades: float = positive_field("LossPlateau: decades", 1.0, default=1.0)
    fall: float = positive_field("LossPlateau: fall", 0.01, default=0.01, below=1.0)

    def prepare(self, start: Snapshot) -> PyTree:
        """The first loss."""
        return Lowest.at_start(excess_loss(start), start)

    def update(self, snapshot: Snapshot, memory: PyTree) -> PyTree:
        """The lowest loss and its time."""
        return memory.lowered(excess_loss(snapshot), self.fall, snapshot)

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """decades - log10 (t / time of the lowest loss)."""
        return self.decades - memory.decades(snapshot.time)

    def describe(self) -> str:
        """A clause."""
        return (
            f"the training loss had not fallen by {float(self.fall):.3g} of itself in {float(self.decades):.3g} decades of "
            "flow time"
        )
