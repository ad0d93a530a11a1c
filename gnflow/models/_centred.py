"""A model minus its value at the start."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ._trainable import trainable_mask, trainable_weights
from ._wrapper import AbstractWrapper


class Centred(AbstractWrapper):
    """f(x; w) - f(x; w_0): `model` without the function that it begins with.

    The outputs begin at zero at any scale of the initial weights, as results on lazy training ask for (Chizat, Oyallon and Bach
    2019, arXiv 1812.07956), while J and the NTK are those of `model`, in closed form where it has one. The weights
    start at w_0 and keep the names of their groups: `gnflow.flows.Frozen(flow, trainable="output")` moves what it moves of
    `model`. Each evaluation takes one of f(x; w_0) more. Kinks and features are those of `model`, as f(x; w_0) does not
    depend on w.

    **Arguments:** `model`: any Equinox module called on one input; its present trainable weights are w_0.

    **Attributes:**

    - `model`: the model with the trained weights w.
    - `start`: w_0, a pytree of the trainable arrays of `model` (None elsewhere); it is not trained.

    **Raises:** `ModelError` if `model` has no trainable weights.
    """

    model: Any
    start: PyTree

    def __init__(self, model: Any):
        self.model = model
        self.start, _ = trainable_weights(model)

    @property
    def first_model(self) -> Any:
        """The model with the weights w_0."""
        return eqx.combine(self.start, self.model)

    @property
    def weight_groups(self) -> dict[str, tuple[str, ...]]:
        """The groups of the model's weights, under the same names."""
        groups = getattr(self.model, "weight_groups", {})
        return {name: tuple(f"model.{path}" for path in paths) for name, paths in groups.items()}

    def trainable_mask(self) -> "Centred":
        """True at the weights w, not at w_0."""
        mask = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda centred: centred.model, mask, trainable_mask(self.model))

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The output at one input; shapes are those of the model."""
        return self.model(x) - self.first_model(x)
