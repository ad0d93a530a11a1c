"""The tangent of the mean-field network and of random features, from two N x M arrays."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..models import MeanFieldNetwork
from ._layered import AbstractLayeredTangent, LayerTangent


class TwoLayerTangent(AbstractLayeredTangent):
    """The tangent of f(x) = (alpha/M^s) sum_i v_i s(u_i.x + b_i).

    With S = s(Z) and D = s'(Z) o v, A = (alpha/M^s)^2 [S S^T + (X~ X~^T) o (D D^T)], which takes two N x M x N products for
    any input dimension. s and s' come from one evaluation of the activation. Derived in docs/theory.md.

    **Attributes:**

    - `outputs`: the outputs (n, C).
    - `layers`: the hidden and the output layer.
    - `weights`: the weights at which the tangent was made; J^T a is a tree like them.
    """

    outputs: Float[Array, "samples outputs"]
    layers: tuple[LayerTangent, ...]
    weights: MeanFieldNetwork

    def __init__(self, weights: MeanFieldNetwork, structure: MeanFieldNetwork, x: Float[Array, "samples input_dim"]):
        model: MeanFieldNetwork = eqx.combine(weights, structure)
        z = x @ model.hidden_weight.T
        if model.hidden_bias is not None:
            z = z + model.hidden_bias[None, :]
        hidden_trained = weights.hidden_weight is not None or weights.hidden_bias is not None
        if hidden_trained:
            features, slopes = model.activation.value_and_derivative(z)
            signals = model.output_factor * slopes[:, None, :] * model.output_weight.T[None, :, :]
            # Without the barrier XLA would evaluate the activation again inside each product that uses it.
            features, signals = jax.lax.optimization_barrier((features, signals))
        else:
            features, signals = model.activation(z), None
        self.outputs = model.output_factor * (features @ model.output_weight)
        self.weights = weights
        hidden = LayerTangent(x, signals, 1.0, 1.0, weights.hidden_weight is not None, weights.hidden_bias is not None)
        output = LayerTangent(features, None, model.output_factor, 1.0, weights.output_weight is not None, False)
        self.layers = (hidden, output)

    def jvp(self, displacement: MeanFieldNetwork) -> Float[Array, "samples outputs"]:
        """J r, (n, C)."""
        weights = (
            (displacement.hidden_weight, displacement.hidden_bias),
            (_transposed(displacement.output_weight), None),
        )
        changes = [layer.jvp(moved) for layer, moved in zip(self.layers, weights, strict=True) if layer.trained]
        return changes[0] if len(changes) == 1 else changes[0] + changes[1]

    def vjp(self, coefficients: Float[Array, "samples outputs"]) -> MeanFieldNetwork:
        """J^T a, a tree like the weights."""
        (hidden_weight, hidden_bias), (output_weight, _) = (layer.vjp(coefficients) for layer in self.layers)
        return _network_of(self.weights, hidden_weight, hidden_bias, _transposed(output_weight))


def random_feature_weights(output_weight: Array | None, features: MeanFieldNetwork) -> MeanFieldNetwork:
    """The tree of weights of a two-layer network in which only `output_weight` is trained."""
    return _network_of(features, None, None, jnp.asarray(output_weight))


def _network_of(like: MeanFieldNetwork, *weights: Array | None) -> MeanFieldNetwork:
    """A tree like `like` with the given hidden weight, hidden bias and output weight."""
    return eqx.tree_at(
        lambda network: (network.hidden_weight, network.hidden_bias, network.output_weight),
        like,
        weights,
        is_leaf=lambda leaf: leaf is None,
    )


def _transposed(matrix: Array | None) -> Array | None:
    return None if matrix is None else matrix.T
