"""The hidden layers of a model, as metrics need them."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from .._core import DataError, ModelError
from ..geometry import System

Inputs = Float[Array, "samples ..."]


def require_hidden_features(system: System, metric: str) -> None:
    """Check that the model has a method `hidden_features`. **Raises:** `ModelError`."""
    _require_method(system, metric, "the last hidden layer", "hidden_features", "(k,)")


def hidden_features(system: System, weights: PyTree, x: Inputs) -> Float[Array, "samples features"]:
    """The last hidden layer (n, k) of the model with these weights on the inputs `x` (n, d)."""
    return _batch(system.model(weights).hidden_features, x)


def require_layer_features(system: System, metric: str) -> None:
    """Check that the model has a method `layer_features`. **Raises:** `ModelError`."""
    _require_method(system, metric, "the outputs of every layer", "layer_features", "a tuple of arrays (k,)")


def layer_features(system: System, weights: PyTree, x: Inputs) -> tuple[Float[Array, "samples features"], ...]:
    """The outputs (n, k) of the layers in `layer_features`, with these weights on the inputs `x` (n, d)."""
    return _batch(system.model(weights).layer_features, x)


def named_inputs(system: System) -> dict[str, Inputs]:
    """The inputs on which features are compared: "train" and, with test data, "test"."""
    x_test = system.problem.x_test
    return {"train": system.problem.x_train} | ({} if x_test is None else {"test": x_test})


def require_samples(system: System, metric: str) -> None:
    """Check that the outputs are the model's values at training inputs. **Raises:** `DataError` for residual problems."""
    if not system.problem.has_samples:
        raise DataError(
            f"{metric} compares the model at training inputs, and a {type(system.problem).__name__} has none; leave it out."
        )


def hidden_layer(model: Any) -> Any:
    """The module with the particles' `hidden_weight` (M, d): the model or, for random features, a part of it.

    **Raises:** `ModelError` if there is no such module.
    """
    for owner in (model, getattr(model, "features", None)):
        if hasattr(owner, "hidden_weight"):
            return owner
    raise ModelError(
        f"{type(model).__name__} has no hidden_weight (M, d), one row for each particle; directions are compared for "
        "two-layer networks only (MeanFieldNetwork, RandomFeatures)."
    )


def _require_method(system: System, metric: str, what: str, method: str, returned: str) -> None:
    require_samples(system, metric)
    model = system.structure
    if not callable(getattr(model, method, None)):
        raise ModelError(
            f"{metric} needs {what}, but {type(model).__name__} has no {method}(x); "
            f"give the model that method, (d,) -> {returned}, or leave {metric} out."
        )


def _batch(features: Callable[[Array], Any], x: Inputs) -> Any:
    return jax.tree.map(lambda array: array.reshape(array.shape[0], -1), jax.vmap(features)(x))
