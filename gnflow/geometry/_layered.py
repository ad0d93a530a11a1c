"""The tangent of a network of dense layers in closed form, from the inputs and signals of each layer."""

import functools
import operator
from collections.abc import Iterable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._row_products import row_products
from ._tangent import AbstractTangent

LayerWeights = tuple[Array | None, Array | None]


class LayerTangent(eqx.Module):
    """The derivative of a network's outputs with respect to one dense layer z = factor W h + bias_factor b.

    With the layer's inputs h_n and its signals delta_nc = d f_c(x_n) / d z (the backpropagated derivatives), the derivative
    of output (n, c) with respect to W is factor delta_nc h_n^T. So this layer's part of the Gram matrix is

        A[(n, c), (m, e)] = (factor^2 h_n . h_m + bias_factor^2) (delta_nc . delta_me),

    which takes two products and no Jacobian.

    **Attributes:**

    - `inputs`: h (n, fan_in).
    - `signals`: delta (n, C, fan_out), or None for the output layer, whose signals are the identity.
    - `factor`, `bias_factor`: the fixed scales of the layer.
    - `weight_trained`, `bias_trained`: whether W and b are trained.
    """

    inputs: Float[Array, "samples fan_in"]
    signals: Float[Array, "samples outputs fan_out"] | None
    factor: float = eqx.field(static=True)
    bias_factor: float = eqx.field(static=True)
    weight_trained: bool = eqx.field(static=True)
    bias_trained: bool = eqx.field(static=True)

    @property
    def trained(self) -> bool:
        """Whether any of the layer's weights moves."""
        return self.weight_trained or self.bias_trained

    def jvp(self, weights: LayerWeights) -> Float[Array, "samples _"]:
        """This layer's part of J r, (n, C), for displacements of (W (fan_out, fan_in), b (fan_out,))."""
        weight, bias = weights
        narrow = self._narrow_inputs
        if narrow is not None:
            # Contracting the wider side first leaves (n, fan_in) numbers instead of (n, fan_out).
            assert self.signals is not None
            parts = ([weight] if weight is not None else []) + ([bias[:, None]] if bias is not None else [])
            change = self.signals[:, 0, :] @ jnp.concatenate(parts, axis=1)
            return jnp.sum(change * narrow, axis=1, keepdims=True)
        change = jnp.zeros(())
        if self.weight_trained:
            assert weight is not None
            change = self.factor * (self.inputs @ weight.T)
        if self.bias_trained:
            assert bias is not None
            change = change + self.bias_factor * bias[None, :]
        change = jnp.broadcast_to(change, (self.inputs.shape[0], change.shape[-1]))
        if self.signals is None:
            return change
        return jnp.einsum("nw,ncw->nc", change, self.signals)

    def vjp(self, coefficients: Float[Array, "samples outputs"]) -> LayerWeights:
        """This layer's part of J^T a: (W (fan_out, fan_in), b (fan_out,)), None where nothing is trained."""
        narrow = self._narrow_inputs
        if narrow is not None:
            assert self.signals is not None
            whole = ((coefficients * narrow).T @ self.signals[:, 0, :]).T
            weight = whole[:, : self.inputs.shape[1]] if self.weight_trained else None
            return weight, whole[:, -1] if self.bias_trained else None
        if self.signals is None:
            signal = coefficients
        else:
            signal = jnp.einsum("nc,ncw->nw", coefficients, self.signals)
        weight = self.factor * (signal.T @ self.inputs) if self.weight_trained else None
        bias = self.bias_factor * jnp.sum(signal, axis=0) if self.bias_trained else None
        return weight, bias

    @property
    def _narrow_inputs(self) -> Float[Array, "samples _"] | None:
        """The factors of the trained weights in z: factor h beside bias_factor.

        None unless there is one output, with signals that are wider than these factors.
        """
        if self.signals is None or self.signals.shape[1] > 1 or self.inputs.shape[1] >= self.signals.shape[2]:
            return None
        parts = ([self.factor * self.inputs] if self.weight_trained else []) + (
            [jnp.full((self.inputs.shape[0], 1), self.bias_factor)] if self.bias_trained else []
        )
        return jnp.concatenate(parts, axis=1)

    def cross_gram(self, other: "LayerTangent", num_outputs: int) -> Float[Array, "n c m c"]:
        """This layer's part of J J'^T, (n, C, m, C)."""
        inner = self.inner_gram(other)
        inner = inner[:, None, :, None]
        if self.signals is None or other.signals is None:
            return inner * jnp.eye(num_outputs)[None, :, None, :]
        left = self.signals.reshape(-1, self.signals.shape[2])
        right = left if other is self else other.signals.reshape(-1, other.signals.shape[2])
        shape = (self.inputs.shape[0], num_outputs, other.inputs.shape[0], num_outputs)
        return inner * row_products(left, right).reshape(shape)

    def inner_gram(self, other: "LayerTangent") -> Float[Array, "n m"]:
        """factor^2 h_n . h_m + bias_factor^2, each term if its weights are trained: the inputs' part of the Gram matrix."""
        return self._of_inputs(row_products(self.inputs, other.inputs))

    def _of_inputs(self, products: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        """factor^2 h_n . h_m + bias_factor^2, each term if its weights are trained, from `products` h_n . h_m."""
        inner = self.factor**2 * products if self.weight_trained else jnp.zeros_like(products)
        return inner + self.bias_factor**2 if self.bias_trained else inner

    def sample_blocks(self, num_outputs: int) -> Float[Array, "n c c"]:
        """This layer's part of the diagonal blocks of A, (n, C, C): each sample with itself."""
        inner = self._of_inputs(jnp.sum(self.inputs**2, axis=1))
        if self.signals is None:
            return inner[:, None, None] * jnp.eye(num_outputs)[None, :, :]
        return inner[:, None, None] * jnp.einsum("ncw,ndw->ncd", self.signals, self.signals)

    def projected_gram(self, projections: Float[Array, "k n c"]) -> Float[Array, "n n"]:
        """This layer's part of sum_k v_kn^T A_nm v_km, (n, n)."""
        if self.signals is None:
            projected = jnp.moveaxis(projections, 0, 1)
        else:
            projected = jnp.einsum("knc,ncw->nkw", projections, self.signals)
        rows = projected.reshape(projected.shape[0], -1)
        return self.inner_gram(self) * row_products(rows, rows)


class AbstractLayeredTangent(AbstractTangent):
    """A network of dense layers, whose Gram matrices are sums over its layers.

    **Attributes:**

    - `outputs`: the outputs (n, C).
    - `layers`: the layers from the first trained one on, with their signals, first to last.
    """

    layers: eqx.AbstractVar[tuple[LayerTangent, ...]]

    def cross_gram(self, other: AbstractTangent) -> Float[Array, "rows columns"]:
        """J J'^T, (nC, n'C), by one product of inputs and one of signals for each layer."""
        assert isinstance(other, AbstractLayeredTangent)
        layers = self.layers  # once: a deep network computes its signals here
        twins = layers if other is self else other.layers
        num_outputs = self.outputs.shape[1]
        pairs = zip(layers, twins, strict=True)
        total = _sum(layer.cross_gram(twin, num_outputs) for layer, twin in pairs if layer.trained)
        return total.reshape(self.outputs.size, other.outputs.size)

    def sample_blocks(self) -> Float[Array, "samples outputs outputs"]:
        """The diagonal blocks of A, (n, C, C), layer by layer."""
        return _sum(layer.sample_blocks(self.outputs.shape[1]) for layer in self.layers if layer.trained)

    def projected_gram(self, projections: Float[Array, "count samples outputs"]) -> Float[Array, "samples samples"]:
        """sum_k v_kn^T A_nm v_km, (n, n), layer by layer."""
        return _sum(layer.projected_gram(projections) for layer in self.layers if layer.trained)


def _sum(parts: Iterable[Array]) -> Array:
    """The sum of at least one array."""
    return functools.reduce(operator.add, parts)
