"""How much of the initial hidden representation is left."""

from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable
from ._centred_kernel_alignment import centred_kernel_alignment
from ._hidden_layer import hidden_features, named_inputs, require_hidden_features


class FeatureAlignment(AbstractMetric):
    """Linear CKA between the last hidden layer now and at the start, on training and on test inputs.

    1 at the start and as long as features only rotate, scale or shift; see `centred_kernel_alignment` for the formula,
    and use that function between runs. nan where the features do not vary over the inputs.
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
        """The initial weights: their features are computed again when needed, for they may be many times larger."""
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
