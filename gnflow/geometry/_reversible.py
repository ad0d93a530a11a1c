"""The tangent of a reversible network, with its NTK in closed form."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..models import HalfBlock, ReversibleMLP
from ._layered import AbstractLayeredTangent, LayerTangent


class ReversibleTangent(AbstractLayeredTangent):
    """The tangent of a `ReversibleMLP`.

    Let a_n be the features of a half-block, and T_n (C, d/2) the derivative of the outputs with respect to what it adds. Then
    A[(n, i), (m, j)] is the sum over half-blocks of (a_n . a_m + 1) (T_n T_m^T)[i, j]. J is one forward pass and J^T one
    backward pass; they do not need the T. Derived in docs/reversible.md.

    **Attributes:**

    - `outputs`: the outputs (n, C).
    - `layers`: F and G of each block, first to last.
    - `weights`, `structure`: the model split into trained arrays and the rest.
    - `x`: the inputs (n, d).
    """

    outputs: Float[Array, "samples outputs"]
    layers: tuple[LayerTangent, ...]
    weights: PyTree
    structure: PyTree
    x: Float[Array, "samples width"]

    def __init__(self, weights: ReversibleMLP, structure: ReversibleMLP, x: Float[Array, "samples width"]):
        model: ReversibleMLP = eqx.combine(weights, structure)
        self.weights, self.structure, self.x = weights, structure, x

        def forward(carry: tuple[Array, Array], block: tuple[HalfBlock, HalfBlock]) -> Any:
            f, g = block
            left, right = carry
            f_features, f_slopes = f.features_and_slopes(right)
            left = left + f.combine(f_features)
            g_features, g_slopes = g.features_and_slopes(left)
            right = right + g.combine(g_features)
            return (left, right), (jnp.stack([f_features, g_features]), jnp.stack([f_slopes, g_slopes]))

        halves, (features, slopes) = model.scan(forward, tuple(jnp.split(x, 2, axis=1)))
        self.outputs = jnp.concatenate(halves, axis=1) @ model.output_projection
        signals = _signals(model, slopes)
        trained = weights.weight is not None, weights.bias is not None
        self.layers = tuple(
            LayerTangent(features[index, k], signals[index, k], 1.0, 1.0, *trained)
            for index in range(model.num_blocks)
            for k in (0, 1)
        )

    def _batch_outputs(self, weights: PyTree) -> Array:
        model: ReversibleMLP = eqx.combine(weights, self.structure)
        return model.hidden_features(self.x) @ model.output_projection

    def jvp(self, displacement: PyTree) -> Float[Array, "samples outputs"]:
        """J r by one forward pass."""
        return jax.jvp(self._batch_outputs, (self.weights,), (displacement,))[1]

    def vjp(self, coefficients: Float[Array, "samples outputs"]) -> PyTree:
        """J^T a by one backward pass, for any C."""
        return jax.vjp(self._batch_outputs, self.weights)[1](coefficients)[0]


def _signals(model: ReversibleMLP, slopes: Array) -> Array:
    """T, the derivatives (L, 2, n, C, d/2) of the outputs with respect to what F and G of each block add, from the slopes
    (L, 2, n, h)."""
    projection = jnp.split(model.output_projection.T[None, :, :], 2, axis=2)
    shape = (slopes.shape[2], *projection[0].shape[1:])

    def backward(carry: tuple[Array, Array, Array], block: tuple[HalfBlock, HalfBlock]) -> Any:
        f, g = block
        to_left, to_right, index = carry
        # The scan runs over the blocks' arrays, so the slopes are found by the block's index in the carry.
        f_slopes, g_slopes = slopes[index]
        from_g = to_right
        to_left = to_left + _pull_back(g, g_slopes, from_g)
        to_right = to_right + _pull_back(f, f_slopes, to_left)
        return (to_left, to_right, index - 1), jnp.stack([to_left, from_g])

    start = (*(jnp.broadcast_to(half, shape) for half in projection), jnp.asarray(model.num_blocks - 1))
    return model.scan(backward, start, reverse=True)[1]


def _pull_back(half: HalfBlock, slopes: Array, signals: Array) -> Array:
    """F'(z)^T applied to each output's derivative (n, C, d/2)."""
    return ((signals @ half.weight) * slopes[:, None, :]) @ half.frozen_weight.T
