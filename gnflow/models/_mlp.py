"""A deep multilayer perceptron in the NTK or the mean-field parametrisation."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._core import (
    ModelError,
    look_up,
    require_bool,
    require_float64,
    require_non_negative,
    require_number,
    require_positive_int,
    stream,
)
from ._activations import Activation, get_activation
from ._checks import require_depth, require_init_scale, require_memory_for_weights

_PARAMETRISATIONS = ("ntk", "mean_field")


class ScaledLinear(eqx.Module):
    """x -> factor * W x + bias_factor * b: a layer whose trained weights W are of order one.

    **Attributes:**

    - `weight`: W (fan_out, fan_in).
    - `bias`: b (fan_out,), or None.
    - `factor`: the fixed scale of W x.
    - `bias_factor`: the fixed scale of b.
    """

    weight: Float[Array, "fan_out fan_in"]
    bias: Float[Array, " fan_out"] | None
    factor: float = eqx.field(static=True)
    # The default is what older versions computed with: runs that they stored do not have this field.
    bias_factor: float = eqx.field(static=True, default=1.0)

    def __call__(self, x: Float[Array, " fan_in"]) -> Float[Array, " fan_out"]:
        """The layer's output (fan_out,) at one input (fan_in,)."""
        z = self.factor * (self.weight @ x)
        return z if self.bias is None else z + self.bias_factor * self.bias


class MLP(eqx.Module):
    """A network with `depth` hidden layers of equal width.

    Layer l computes z_l = fan_in^(-1/2) W_l s(z_{l-1}) + b_l with W ~ N(0, init_scale^2) and b = 0 at the start. The
    output layer has the factor width^(-1/2) in the NTK parametrisation (Jacot et al. 2018) and 1/width in the mean-field
    parametrisation, where features move at any width when the flow runs with mobility M = width (Bordelon and Pehlevan
    2022, "Self-consistent dynamical field theory", Section 2; the same limit as maximal update, Yang and Hu 2021). In the
    mean-field parametrisation the bias of the output layer is width^(-1/2) b, so that with this mobility it moves the outputs
    as fast as each layer does. Maximal update gives it the mobility 1, which is the same (docs/theory.md, Deep networks). The
    output layer, with its bias, is multiplied by `output_scale` (the alpha of Chizat, Oyallon and Bach 2019, arXiv 1812.07956).

    **Arguments:**

    - `input_dim`: the number d of features of an input.
    - `width`: the number of units in each hidden layer.
    - `depth`: the number of hidden layers.
    - `output_dim`: the number C of outputs.
    - `activation`: s, a name of `activation_names`, an `Activation`, or any elementwise JAX function.
    - `parametrisation`: "ntk" or "mean_field".
    - `init_scale`: the standard deviation of the initial weights, > 0.
    - `bias`: whether the layers have biases.
    - `output_scale`: alpha, > 0, as of `MeanFieldNetwork`. The larger it is, the less the weights move for one change of
      the outputs.
    - `output_init_scale`: the standard deviation of the initial weights of the output layer, >= 0; None takes `init_scale`.
      With 0 the outputs begin at zero, as those of `MeanFieldNetwork` do by default.
    - `key`: a JAX key; the weights of each layer have their own stream of it.

    **Attributes:** `layers`: `depth + 1` layers, each with `weight` (fan_out, fan_in) and `bias`.

    **Raises:** `ModelError` for sizes or names with which no network can be made, `PrecisionError` without float64.
    """

    layers: tuple[ScaledLinear, ...]
    activation: Activation
    parametrisation: str = eqx.field(static=True)

    def __init__(
        self,
        input_dim: int,
        width: int,
        depth: int,
        output_dim: int = 1,
        activation: str | Activation | Callable[[Array], Array] = "silu",
        parametrisation: Literal["ntk", "mean_field"] = "ntk",
        init_scale: float = 1.0,
        bias: bool = True,
        output_scale: float = 1.0,
        output_init_scale: float | None = None,
        *,
        key: Any,
    ):
        input_dim, width, depth, output_dim = require_positive_int(
            ModelError, input_dim=input_dim, width=width, depth=depth, output_dim=output_dim
        )
        require_depth(depth=depth)
        init_scale = require_init_scale(init_scale)
        (bias,) = require_bool(ModelError, bias=bias)
        output_scale = require_number(ModelError, "output_scale", output_scale, above=0.0)
        if output_init_scale is None:
            output_init_scale = init_scale
        (output_init_scale,) = require_non_negative(ModelError, output_init_scale=output_init_scale)
        look_up(parametrisation, dict.fromkeys(_PARAMETRISATIONS), "parametrisation", ModelError)
        require_float64((), "MLP")
        require_memory_for_weights("MLP", width * (input_dim + (depth - 1) * width + output_dim))
        sizes = (input_dim, *(width,) * depth, output_dim)
        mean_field = parametrisation == "mean_field"
        factors = [size**-0.5 for size in sizes[:-2]] + [output_scale * (1 / width if mean_field else width**-0.5)]
        # Without the output scale the output bias has the derivative bias_factor in every sample, so its share of the NTK is
        # mobility * bias_factor^2, which is 1 in both parametrisations.
        bias_factors = [1.0] * depth + [output_scale * (width**-0.5 if mean_field else 1.0)]
        scales = [init_scale] * depth + [output_init_scale]
        self.layers = tuple(
            ScaledLinear(
                weight=scale * jr.normal(stream(key, f"layers[{index}].weight"), (fan_out, fan_in)),
                bias=jnp.zeros(fan_out) if bias else None,
                factor=factor,
                bias_factor=bias_factor,
            )
            for index, (fan_in, fan_out, factor, bias_factor, scale) in enumerate(
                zip(sizes[:-1], sizes[1:], factors, bias_factors, scales, strict=True)
            )
        )
        self.activation = get_activation(activation)
        self.parametrisation = parametrisation

    @property
    def width(self) -> int:
        """The number of units in each hidden layer."""
        return self.layers[0].weight.shape[0]

    @property
    def mobility(self) -> float:
        """The m of w' = -m grad L with which the outputs' speed does not depend on the width: width, or 1 for the NTK."""
        return float(self.width) if self.parametrisation == "mean_field" else 1.0

    @property
    def weight_groups(self) -> dict[str, tuple[str, ...]]:
        """The layers by the names that `gnflow.flows.Frozen` takes: "hidden" for all but the last, "output" for the last."""
        names = [f"layers[{index}]" for index in range(len(self.layers))]
        return {"hidden": tuple(names[:-1]), "output": (names[-1],)}

    @property
    def activations(self) -> tuple[Activation, ...]:
        """The activation of each hidden layer; the rest of the network is sums and products."""
        return (self.activation,) * (len(self.layers) - 1)

    def pre_activations(self, x: Float[Array, " input_dim"]) -> tuple[Float[Array, " width"], ...]:
        """z_l (width,) of every hidden layer, from the input on: what its activation is applied to."""
        before = []
        for layer in self.layers[:-1]:
            before.append(layer(x))
            x = self.activation(before[-1])
        return tuple(before)

    def layer_features(self, x: Float[Array, " input_dim"]) -> tuple[Float[Array, " width"], ...]:
        """The activations (width,) of every hidden layer, from the input on."""
        return tuple(self.activation(z) for z in self.pre_activations(x))

    def hidden_features(self, x: Float[Array, " input_dim"]) -> Float[Array, " width"]:
        """The last hidden layer's activations (width,), which the output layer combines linearly."""
        return self.layer_features(x)[-1]

    def __call__(self, x: Float[Array, " input_dim"]) -> Float[Array, " output_dim"]:
        """The output (C,) at one input (d,)."""
        return self.layers[-1](self.hidden_features(x))
