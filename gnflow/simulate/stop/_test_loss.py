"""Early stopping by the test loss."""

from typing import ClassVar

from jaxtyping import Array, Float

from ...geometry import Snapshot
from ._base import positive_field
from ._early_stopping import AbstractEarlyStopping


class TestLoss(AbstractEarlyStopping):
    """Early stopping: stop when the test loss has had no new minimum for `decades` of flow time.

    With decades = 0.5 this is when at some t the lowest test loss so far was reached before t/3.16. The minimum is found in
    `trajectory.data.test_loss`; the model that is returned is the one at the end, not the one at the minimum. The clock, and
    its meaning in `iterate`, are as for `LossPlateau`. The rule costs one forward pass over the test inputs per step.

    **Arguments:**

    - `decades`: decades of flow time.

    **Raises:** `ConfigError` unless `decades` is positive and finite, and at the start of a run whose problem has no test data.
    """

    __test__: ClassVar[bool] = False  # keeps pytest from taking the class for a test
    samples: ClassVar[str] = "test"

    decades: float = positive_field("TestLoss: decades", 0.5, default=0.5)

    def loss(self, snapshot: Snapshot) -> Float[Array, ""]:
        """The test loss at a state."""
        return snapshot.test_loss
