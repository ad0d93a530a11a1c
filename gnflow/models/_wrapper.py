"""The part that models made of another model share."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array


class AbstractWrapper(eqx.Module):
    """A model made of another one, with what is known of it because it is known of that.

    **Attributes:** `model`: the other one.
    """

    model: eqx.AbstractVar[Any]

    @property
    def mobility(self) -> float:
        """The mobility of the model; 1 for a model without one."""
        return getattr(self.model, "mobility", 1.0)

    @property
    def activations(self) -> tuple[Any, ...] | None:
        """The activations of the model; None for a model that does not name them."""
        return getattr(self.model, "activations", None)

    @property
    def pre_activations(self) -> Callable[[Array], tuple[Array, ...]] | None:
        """The method of the model; None for a model without it."""
        return getattr(self.model, "pre_activations", None)

    @property
    def hidden_features(self) -> Callable[[Array], Array] | None:
        """The method of the model; None for a model without it."""
        return getattr(self.model, "hidden_features", None)

    @property
    def layer_features(self) -> Callable[[Array], tuple[Array, ...]] | None:
        """The method of the model; None for a model without it."""
        return getattr(self.model, "layer_features", None)
