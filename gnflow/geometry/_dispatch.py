"""Which tangent belongs to which model: the closed form where there is one, automatic differentiation otherwise."""

import functools
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ..models import MLP, Linearised, MeanFieldNetwork, RandomFeatures, ReversibleMLP, trainable_weights
from ._deep import DeepTangent
from ._generic import GenericTangent
from ._reversible import ReversibleTangent
from ._tangent import AbstractTangent
from ._two_layer import TwoLayerTangent, random_feature_weights
from ._wrapped import WrappedTangent


def make_tangent(structure: Any, weights: PyTree, x: Float[Array, "samples ..."]) -> AbstractTangent:
    """The tangent at `weights` on the inputs `x` of the model whose untrained rest is `structure`.

    Chosen by the model's class; a class without a closed form gets the generic one, and so does a class of the user's that
    inherits from one of gnflow's: it may compute something else. To add a closed form, register a function of these
    arguments for the class here.
    """
    make = _closed_forms.dispatch(type(structure)) if type(structure) in _closed_forms.registry else _generic
    return make(structure, weights, x)


def _generic(structure: Any, weights: PyTree, x: Float[Array, "samples ..."]) -> AbstractTangent:
    return GenericTangent(weights, structure, x)


@functools.singledispatch
def _closed_forms(structure: Any, weights: PyTree, x: Float[Array, "samples ..."]) -> AbstractTangent:
    raise NotImplementedError


@_closed_forms.register
def _(structure: MeanFieldNetwork, weights: PyTree, x: Array) -> AbstractTangent:
    return TwoLayerTangent(weights, structure, x)


@_closed_forms.register
def _(structure: MLP, weights: PyTree, x: Array) -> AbstractTangent:
    return DeepTangent(weights, structure, x)


@_closed_forms.register
def _(structure: ReversibleMLP, weights: PyTree, x: Array) -> AbstractTangent:
    return ReversibleTangent(weights, structure, x)


@_closed_forms.register
def _(structure: RandomFeatures, weights: PyTree, x: Array) -> AbstractTangent:
    model: RandomFeatures = eqx.combine(weights, structure)
    network_weights = random_feature_weights(model.output_weight, model.features)
    inner = TwoLayerTangent(network_weights, model.features, x)
    return WrappedTangent(inner.outputs, inner, weights, network_weights)


@_closed_forms.register
def _(structure: Linearised, weights: PyTree, x: Array) -> AbstractTangent:
    model: Linearised = eqx.combine(weights, structure)
    start, base_structure = trainable_weights(model.base)
    whole = make_tangent(base_structure, start, x)
    outputs = whole.outputs + whole.jvp(model.displacement)
    moving = jax.tree.map(
        lambda leaf, moves: None if moves is None else leaf, start, weights.weights, is_leaf=lambda leaf: leaf is None
    )
    fixed = eqx.combine(base_structure, start)
    return WrappedTangent(outputs, make_tangent(fixed, moving, x), weights, moving)
