"""The similarity of every layer's representation to the initial one."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable
from ._centred_kernel_alignment import centred_kernel_alignment
from ._hidden_layer import layer_features, named_inputs, require_layer_features


class LayerAlignment(AbstractMetric):
    """Linear CKA between each layer now and at the start, on training and on test inputs.

    This is `FeatureAlignment` for every layer in the model's `layer_features`: the hidden layers of an `MLP`, the blocks of a
    `ReversibleMLP`. It is 1 at the start and as long as a layer's features only rotate, scale or shift, and nan if they do
    not vary over the inputs. Source: Kornblith et al. 2019, Section 3.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`layer_cka_train` and, with test data, `layer_cka_test`, with the dimension "layer", from the input on.

        **Raises:** `ModelError` for a model without `layer_features`.
        """
        require_layer_features(system, "LayerAlignment")
        return tuple(
            Variable(
                f"layer_cka_{name}",
                f"CKA of each layer with the start ({name})",
                "1",
                "Kornblith et al. 2019",
                ("layer",),
            )
            for name in named_inputs(system)
        )

    def prepare(self, start: Snapshot) -> PyTree:
        """The initial weights. Their features may be many times larger, so they are computed again when they are needed."""
        return start.weights

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The alignments (layers,); 1 at the start."""
        system = snapshot.system
        values: dict[str, Float[Array, "..."]] = {}
        for name, x in named_inputs(system).items():
            now, start = (layer_features(system, weights, x) for weights in (snapshot.weights, memory))
            pairs = zip(now, start, strict=True)
            values[f"layer_cka_{name}"] = jnp.stack([centred_kernel_alignment(a, b) for a, b in pairs])
        return values
