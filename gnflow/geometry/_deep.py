"""The tangent of a deep MLP: one forward and one backward pass for every output, then layer by layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..models import MLP
from ._layered import AbstractLayeredTangent, LayerTangent, LayerWeights


class DeepTangent(AbstractLayeredTangent):
    """The tangent of an `MLP`; cost of a Gram matrix: one (NC x width) and one (N x width) product per layer.

    Source: the layerwise form of the NTK, Jacot et al. 2018, Theorem 1, at finite width.

    **Attributes:** as every layered tangent.
    """

    outputs: Float[Array, "samples outputs"]
    layers: tuple[LayerTangent, ...]
    weights: PyTree

    def __init__(self, weights: MLP, structure: MLP, x: Float[Array, "samples input_dim"]):
        model: MLP = eqx.combine(weights, structure)
        inputs, slopes = [x], []
        for layer in model.layers[:-1]:
            value, slope = model.activation.value_and_derivative(jax.vmap(layer)(inputs[-1]))
            inputs.append(value)
            slopes.append(slope)
        self.outputs = jax.vmap(model.layers[-1])(inputs[-1])
        # signals[l]: derivative of every output with respect to layer l's pre-activations, (n, C, fan_out).
        signals: list[Array | None] = [None]
        for layer, slope in zip(reversed(model.layers[1:]), reversed(slopes), strict=True):
            above = signals[0]
            if above is None:
                backward = layer.weight[None, :, :]
            else:
                backward = jnp.einsum("ncw,wk->nck", above, layer.weight)
            signals.insert(0, layer.factor * backward * slope[:, None, :])
        self.weights = weights
        self.layers = tuple(
            LayerTangent(inner, signal, layer.factor, trained.weight is not None, trained.bias is not None)
            for inner, signal, layer, trained in zip(inputs, signals, model.layers, weights.layers, strict=True)
        )

    @staticmethod
    def layer_weights(weights: MLP) -> tuple[LayerWeights, ...]:
        """(W, b) of each layer."""
        return tuple((layer.weight, layer.bias) for layer in weights.layers)

    @staticmethod
    def weight_tree(like: MLP, layers: tuple[LayerWeights, ...]) -> MLP:
        """The MLP-shaped tree of (W, b) of each layer."""
        return eqx.tree_at(
            lambda network: [part for layer in network.layers for part in (layer.weight, layer.bias)],
            like,
            [part for pair in layers for part in pair],
            is_leaf=lambda leaf: leaf is None,
        )
