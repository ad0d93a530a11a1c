"""Stop when the training loss no longer falls."""

from typing import ClassVar

from jaxtyping import Array, Float, PyTree

from ...geometry import Snapshot
from ._base import AbstractStopRule, positive_field
from ._patience import DECADES_BETWEEN_LOOKS, Lowest
from ._time_scale import excess_loss


class LossPlateau(AbstractStopRule):
    """Stop when L - L* has not fallen by the share `fall` within `decades` of flow time.

    With decades = 1 this is when at some t the loss is above (1 - fall) times its value at t/10. The clock starts at the time
    scale (L - L*)/|dL/dt| of the first decrease, so that a slow start does not count; or at the time in which the loss would
    vanish at its mean rate so far, if that is sooner (at a saddle of small weights the first rate says nothing). A saddle may
    look like a plateau: most of them last less than one decade, but not all. The rule is evaluated after accepted steps, and
    in `iterate` after the saved steps. There time is step * step_size, or the number of steps with an optimiser, so that a
    decade is ten times as many steps.

    **Arguments:**

    - `decades`: decades of flow time.
    - `fall`: the relative fall of the loss, below 1.

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
        """The rule as a clause."""
        return (
            f"the training loss had not fallen by {float(self.fall):.3g} of itself in {float(self.decades):.3g} decades of "
            "flow time"
        )
