"""The similarity of the hidden representation to the initial one."""

from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable
from ._centred_kernel_alignment import centred_kernel_alignment
from ._hidden_layer import hidden_features, named_inputs, require_hidden_features


class FeatureAlignment(AbstractMetric):
    """Linear CKA between the last hidden layer now and at the start, on training and on test inputs.

    It is 1 at the start and as long as features only rotate, scale or shift, and nan if features do not vary over the inputs.
    `centred_kernel_alignment` has the formula; use that function to compare runs.
    Source: Kornblith et al. 2019, Section 3.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`feature_cka_train` and, with test data, `feature_cka_test`.

        **Raises:** `ModelError` for a model without `hidden_features`.
        """
        require_hidden_features(system, "FeatureAlignment")
        return tuple(
            Variable(
                f"feature_cka_{name}", f"CKA of hidden features with the start ({name})", "1", "Kornblith et al. 2019"
            )
            for name in named_inputs(system)
        )

    def prepare(self, start: Snapshot) -> PyTree:
        """The initial weights. Their features may be many times larger, so they are computed again when they are needed."""
        return start.weights

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The alignments; 1 at the start."""
        system = snapshot.system
        return {
            f"feature_cka_{name}": centred_kernel_alignment(
                hidden_features(system, snapshot.weights, x), hidden_features(system, memory, x)
            )
            for name, x in named_inputs(system).items()
        }
