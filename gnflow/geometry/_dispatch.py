"""Choose a model's tangent: a closed form if there is one, otherwise automatic differentiation."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ..models import MLP, Centred, Linearised, MeanFieldNetwork, RandomFeatures, ReversibleMLP, trainable_weights
from ..problems import Collocation
from ._deep import DeepTangent
from ._generic import GenericTangent
from ._residual import ResidualTangent
from ._reversible import ReversibleTangent
from ._tangent import AbstractTangent
from ._two_layer import TwoLayerTangent, random_feature_weights
from ._wrapped import WrappedTangent

_Make = Callable[[Any, PyTree, Array], AbstractTangent]


def tangent_of(structure: Any, weights: PyTree, x: Float[Array, "samples ..."] | Collocation) -> AbstractTangent:
    """The tangent of a model's values on the inputs `x`, or that of residuals. The arguments are those of `make_tangent`."""
    if isinstance(x, Collocation):
        return ResidualTangent(weights, structure, x)
    return make_tangent(structure, weights, x)


@functools.singledispatch
def make_tangent(structure: Any, weights: PyTree, x: Float[Array, "samples ..."]) -> AbstractTangent:
    """The tangent of a model at `weights` on the inputs `x`.

    The model's class decides. A class without a closed form gets the generic tangent, and so does a user's subclass of one of
    gnflow's models, which may compute something else. To add a closed form, register a function of these arguments for the
    class: `make_tangent.register(MyModel, make)`.

    **Arguments:**

    - `structure`: the model without its trained weights.
    - `weights`: the trained weights, with None elsewhere.
    - `x`: the inputs (n, d).
    """
    return GenericTangent(weights, structure, x)


def _closed_form(kind: type) -> Callable[[_Make], _Make]:
    """Register a function for models of the class `kind` itself, not of its subclasses."""

    def register(make: _Make) -> _Make:
        generic = make_tangent.dispatch(object)
        make_tangent.register(
            kind, lambda structure, *rest: (make if type(structure) is kind else generic)(structure, *rest)
        )
        return make

    return register


@_closed_form(MeanFieldNetwork)
def _(structure: MeanFieldNetwork, weights: PyTree, x: Array) -> AbstractTangent:
    return TwoLayerTangent(weights, structure, x)


@_closed_form(MLP)
def _(structure: MLP, weights: PyTree, x: Array) -> AbstractTangent:
    return DeepTangent(weights, structure, x)


@_closed_form(ReversibleMLP)
def _(structure: ReversibleMLP, weights: PyTree, x: Array) -> AbstractTangent:
    return ReversibleTangent(weights, structure, x)


@_closed_form(RandomFeatures)
def _(structure: RandomFeatures, weights: PyTree, x: Array) -> AbstractTangent:
    model: RandomFeatures = eqx.combine(weights, structure)
    network_weights = random_feature_weights(model.output_weight, model.features)
    inner = TwoLayerTangent(network_weights, model.features, x)
    return WrappedTangent(inner.outputs, inner, weights, network_weights)


@_closed_form(Linearised)
def _(structure: Linearised, weights: PyTree, x: Array) -> AbstractTangent:
    model: Linearised = eqx.combine(weights, structure)
    start, base_structure = trainable_weights(model.base)
    whole = make_tangent(base_structure, start, x)
    outputs = whole.outputs + whole.jvp(model.displacement)
    # Weights that the system does not train are None in `weights`, and have to be None in the base model too.
    moving = jax.tree.map(
        lambda leaf, moves: None if moves is None else leaf, start, weights.weights, is_leaf=lambda leaf: leaf is None
    )
    fixed = eqx.combine(base_structure, start)
    return WrappedTangent(outputs, make_tangent(fixed, moving, x), weights, moving)


@_closed_form(Centred)
def _(structure: Centred, weights: PyTree, x: Array) -> AbstractTangent:
    model: Centred = eqx.combine(weights, structure)
    inner = make_tangent(structure.model, weights.model, x)
    first = jax.vmap(model.first_model)(x).reshape(inner.outputs.shape)
    return WrappedTangent(inner.outputs - first, inner, weights, weights.model)
