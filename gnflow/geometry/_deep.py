"""The tangent of a deep MLP: J and J^T by one pass through the layers, the Gram matrix layer by layer."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..models import MLP
from ._layered import AbstractLayeredTangent, LayerTangent


class DeepTangent(AbstractLayeredTangent):
    """The tangent of an `MLP`. A Gram matrix costs one (NC x width) and one (N x width) product per layer.

    J is one forward pass and J^T one backward pass, with two N x width x width products per layer for any C. A Gram matrix
    needs signals (n, C, width), C times as many numbers as a pass; they are computed only for Gram matrices.

    Source: the layerwise form of the NTK, Jacot et al. 2018, Theorem 1, at finite width.

    **Attributes:**

    - `outputs`: the outputs (n, C).
    - `inputs`: the inputs (n, fan_in) of each layer, first to last.
    - `slopes`: the derivative (n, width) of each hidden layer's activation.
    - `weights`, `structure`: the model split into trained arrays and the rest.
    """

    outputs: Float[Array, "samples outputs"]
    inputs: tuple[Float[Array, "samples _"], ...]
    slopes: tuple[Float[Array, "samples width"], ...]
    weights: MLP
    structure: MLP

    def __init__(self, weights: MLP, structure: MLP, x: Float[Array, "samples input_dim"]):
        model: MLP = eqx.combine(weights, structure)
        inputs, slopes = [x], []
        for layer in model.layers[:-1]:
            value, slope = model.activation.value_and_derivative(jax.vmap(layer)(inputs[-1]))
            inputs.append(value)
            slopes.append(slope)
        # Without the barrier XLA would evaluate the activation again inside each product that uses it.
        self.inputs, self.slopes = jax.lax.optimization_barrier((tuple(inputs), tuple(slopes)))
        self.outputs = jax.vmap(model.layers[-1])(self.inputs[-1])
        self.weights = weights
        self.structure = structure

    @property
    def _model(self) -> MLP:
        return eqx.combine(self.weights, self.structure)

    @property
    def _first_trained(self) -> int:
        """The first layer with trained weights. No pass goes below it."""
        trained = [layer.weight is not None or layer.bias is not None for layer in self.weights.layers]
        return trained.index(True)

    def jvp(self, displacement: MLP) -> Float[Array, "samples outputs"]:
        """J r, (n, C), by one forward pass: each layer's output changes with its weights and with its input."""
        change: Array | None = None
        slopes = (*self.slopes, None)
        for layer, moved, inner, slope in zip(
            self._model.layers, displacement.layers, self.inputs, slopes, strict=True
        ):
            parts = [] if change is None else [layer.factor * (change @ layer.weight.T)]
            if moved.weight is not None:
                parts.append(layer.factor * (inner @ moved.weight.T))
            if moved.bias is not None:
                shift = layer.bias_factor * moved.bias
                parts.append(jnp.broadcast_to(shift[None, :], (inner.shape[0], shift.shape[0])))
            if parts:
                total: Array = sum(parts)  # pyright: ignore[reportAssignmentType]
                change = total if slope is None else slope * total
        assert change is not None
        return change

    def vjp(self, coefficients: Float[Array, "samples outputs"]) -> MLP:
        """J^T a, a tree like the weights, by one backward pass."""
        model, first = self._model, self._first_trained
        signal = coefficients
        pulled: list[Array | None] = []
        for index in reversed(range(len(model.layers))):
            trained = self.weights.layers[index]
            layer, inner = model.layers[index], self.inputs[index]
            pulled = [
                None if trained.weight is None else layer.factor * (signal.T @ inner),
                None if trained.bias is None else layer.bias_factor * jnp.sum(signal, axis=0),
                *pulled,
            ]
            if index > first:
                signal = layer.factor * (signal @ layer.weight) * self.slopes[index - 1]
            else:
                pulled = [None] * (2 * index) + pulled
                break
        return eqx.tree_at(
            lambda network: [part for layer in network.layers for part in (layer.weight, layer.bias)],
            self.weights,
            pulled,
            is_leaf=lambda leaf: leaf is None,
        )

    def gram_operator(self) -> Callable[[Float[Array, "samples outputs"]], Float[Array, "samples outputs"]]:
        """v -> A v by one backward and one forward pass.

        A layer with more than n/2 inputs uses the Gram matrix (n, n) of its inputs, which is computed once. A product then
        takes n^2 width operations in the place of 2 n fan_in width.
        """
        model, first = self._model, self._first_trained
        layers = [
            LayerTangent(inner, None, layer.factor, layer.bias_factor, part.weight is not None, part.bias is not None)
            for inner, layer, part in zip(self.inputs, model.layers, self.weights.layers, strict=True)
        ]
        # Signals are None because each layer is seen from its own pre-activations, whose derivative is the identity.
        grams = [
            layer.inner_gram(layer) if layer.inputs.shape[0] < 2 * layer.inputs.shape[1] else None for layer in layers
        ]

        def product(coefficients: Float[Array, "samples outputs"]) -> Float[Array, "samples outputs"]:
            signals = [coefficients]
            for index in range(len(layers) - 1, first, -1):
                signals.insert(
                    0, model.layers[index].factor * (signals[0] @ model.layers[index].weight) * self.slopes[index - 1]
                )
            change: Array | None = None
            for index, signal in zip(range(first, len(layers)), signals, strict=True):
                layer, gram = layers[index], grams[index]
                parts = [] if change is None else [model.layers[index].factor * (change @ model.layers[index].weight.T)]
                if layer.trained:
                    parts.append(layer.jvp(layer.vjp(signal)) if gram is None else gram @ signal)
                total: Array = sum(parts)  # pyright: ignore[reportAssignmentType]
                change = total if index == len(layers) - 1 else self.slopes[index] * total
            assert change is not None
            return change

        return product

    @property
    def layers(self) -> tuple[LayerTangent, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The layers from the first trained one on, with their signals (n, C, fan_out): the derivatives of the outputs with
        respect to the layer's pre-activations."""
        model = self._model
        first = self._first_trained
        signals: list[Array | None] = [None]
        for index in range(len(model.layers) - 1, first, -1):
            layer, above = model.layers[index], signals[0]
            if above is None:
                backward = layer.weight[None, :, :]
            else:
                backward = jnp.einsum("ncw,wk->nck", above, layer.weight)
            signals.insert(0, layer.factor * backward * self.slopes[index - 1][:, None, :])
        return tuple(
            LayerTangent(
                inner, signal, layer.factor, layer.bias_factor, trained.weight is not None, trained.bias is not None
            )
            for inner, signal, layer, trained in zip(
                self.inputs[first:], signals, model.layers[first:], self.weights.layers[first:], strict=True
            )
        )
