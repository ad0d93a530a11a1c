"""Early stopping."""

from typing import ClassVar

from jaxtyping import Array, Float, PyTree

from ..._core import ConfigError
from ...geometry import Snapshot
from ._base import AbstractStopRule, positive_field
from ._patience import DECADES_BETWEEN_LOOKS, Lowest


class TestLoss(AbstractStopRule):
    """Early stopping: stop when the test loss has had no new minimum for `decades` of flow time.

    With decades = 0.5 this is when at some t the lowest test loss so far was reached before t/3.16. The minimum is found in
    `trajectory.data.test_loss`; the model that is returned is the one at the end, not the one at the minimum. The clock, and
    its meaning in `iterate`, are as for `LossPlateau`. The rule costs one forward pass over the test inputs per step.

    **Arguments:**

    - `decades`: decades of flow time.

    **Raises:** `ConfigError` unless `decades` is positive and finite, and at the start of a run whose problem has no test data.
    """

    __test__: ClassVar[bool] = False  # keeps pytest from taking the class for a test
    bisected: ClassVar[bool] = False
    decades_between_looks: ClassVar[float] = DECADES_BETWEEN_LOOKS

    decades: float = positive_field("TestLoss: decades", 0.5, default=0.5)

    def prepare(self, start: Snapshot) -> PyTree:
        """The first test loss."""
        if start.system.problem.x_test is None:
            raise ConfigError(
                "stop = TestLoss needs test data, and the problem has none: give x_test, y_test, or take LossPlateau."
            )
        return Lowest.at_start(start.test_loss, start)

    def update(self, snapshot: Snapshot, memory: PyTree) -> PyTree:
        """The lowest test loss and its time."""
        return memory.lowered(snapshot.test_loss, 0.0, snapshot)

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """decades - log10 (t / time of the lowest test loss)."""
        return self.decades - memory.decades(snapshot.time)

    def describe(self) -> str:
        """The rule as a clause."""
        return f"the test loss had no new minimum for {float(self.decades):.3g} decades of flow time"
