"""Networks whose tangent kernels have closed forms. Any Equinox module called on one input can be a model.

A model may say more about itself by optional attributes: `hidden_features(x)` (the last hidden layer), `layer_features(x)`
(the output of every layer), `mobility` (the time unit of its particle metric), `weight_groups` (names of layers),
`trainable_mask()`, and `activations` with `pre_activations(x)` (where its kinks are).
"""

from collections.abc import Callable
from typing import Any

from ._activations import (
    Activation as Activation,
    DerivativeBounds as DerivativeBounds,
    activation_names as activation_names,
    get_activation as get_activation,
)
from ._centred import Centred as Centred
from ._copy_teacher import copy_teacher as copy_teacher
from ._kinks import has_kinks as has_kinks, kinked_activations as kinked_activations
from ._linearised import Linearised as Linearised
from ._mean_field import MeanFieldNetwork as MeanFieldNetwork
from ._mlp import MLP as MLP, ScaledLinear as ScaledLinear
from ._random_features import RandomFeatures as RandomFeatures
from ._reversible import HalfBlock as HalfBlock, ReversibleMLP as ReversibleMLP
from ._single_precision import SinglePrecision as SinglePrecision
from ._trainable import trainable_mask as trainable_mask, trainable_weights as trainable_weights

model_kinds: dict[str, Callable[..., Any]] = {
    "mean_field": MeanFieldNetwork,
    "mlp": MLP,
    "random_features": RandomFeatures,
    "reversible": ReversibleMLP,
}
