"""Early stopping by the validation loss."""

from typing import ClassVar

from jaxtyping import Array, Float

from ...geometry import Snapshot
from ._base import positive_field
from ._early_stopping import AbstractEarlyStopping


class ValidationLoss(AbstractEarlyStopping):
    """Early stopping: stop when the validation loss has had no new minimum for `decades` of flow time.

    As `TestLoss`, by other samples, so that the test loss is left to judge. The minimum is found in
    `trajectory.data.validation_loss` and `trajectory.best_losses`.

    **Arguments:**

    - `decades`: decades of flow time.

    **Raises:** `ConfigError` unless `decades` is positive and finite, and at the start of a run whose problem has no validation
    data.
    """

    samples: ClassVar[str] = "validation"

    decades: float = positive_field("ValidationLoss: decades", 0.5, default=0.5)

    def loss(self, snapshot: Snapshot) -> Float[Array, ""]:
        """The validation loss at a state."""
        return snapshot.validation_loss
