"""What metrics ask of a model's hidden layer, and how they refuse a model that has none."""

from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from .._core import ModelError
from ..geometry import System


def require_hidden_features(system: System, metric: str) -> None:
    """Check that the model names its last hidden layer. **Raises:** `ModelError`."""
    model = system.structure
    if not callable(getattr(model, "hidden_features", None)):
        raise ModelError(
            f"{metric} needs the last hidden layer, but {type(model).__name__} has no hidden_features(x); "
            f"give the model that method, (d,) -> (k,), or leave {metric} out."
        )


def hidden_features(
    system: System, weights: PyTree, x: Float[Array, "samples ..."]
) -> Float[Array, "samples features"]:
    """The last hidden layer (n, k) of the model with these weights on the inputs `x` (n, d)."""
    features = jax.vmap(system.model(weights).hidden_features)(x)
    return features.reshape(features.shape[0], -1)


def hidden_layer(model: Any) -> Any:
    """The module that has the particles' `hidden_weight` (M, d): the model or, for random features, a part of it.

    **Raises:** `ModelError` if there is none.
    """
    for owner in (model, getattr(model, "features", None)):
        if hasattr(owner, "hidden_weight"):
            return owner
    raise ModelError(
        f"{type(model).__name__} has no hidden_weight (M, d), one row for each particle; directions are compared for "
        "two-layer networks only (MeanFieldNetwork, RandomFeatures)."
    )
