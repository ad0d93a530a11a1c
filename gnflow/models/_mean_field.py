"""The mean-field two-layer network: M particles (u_i, b_i, v_i)."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._core import (
    ModelError,
    require_bool,
    require_float64,
    require_integer,
    require_non_negative,
    require_number,
    require_positive_int,
    stream,
)
from ._activations import Activation, get_activation
from ._checks import require_init_scale, require_memory_for_weights


class MeanFieldNetwork(eqx.Module):
    """f(x) = (alpha / M^s) sum_i v_i s(u_i . x + b_i), a network of M particles.

    alpha = 1, s = 1 is the mean-field scaling, in which features move; s = 1/2 is the NTK scaling, in which they do not
    as M grows; a large alpha makes training lazy (Chizat, Oyallon, Bach 2019). At the start u_i, b_i ~ N(0, init_scale^2)
    (the tau0 of [A]) and v_i ~ N(0, output_init_scale^2), which is v_i = 0 by default, as in [A], Section 5.

    **Arguments:**

    - `input_dim`: the number d of features of an input.
    - `width`: the number M of particles.
    - `output_dim`: the number C of outputs.
    - `activation`: one of SiLU, ReLU, tanh, erf, GELU, softplus, sigmoid, identity (lower-case names), an
      `Activation`, or any elementwise JAX function (`Activation.from_function`).
    - `init_scale`: tau0, the standard deviation of u and b at the start, > 0.
    - `output_init_scale`: the standard deviation of v at the start, >= 0.
    - `bias`: whether the hidden units have biases b.
    - `output_scale`: alpha > 0.
    - `output_exponent`: s, from 0 to 4.
    - `block`: which particles of the key's streams these are, a number of at least 0: `width` of them from `block * width` on.
      So the blocks 0 to r - 1 of one key and width M are together the particles of block 0 of width r M, as averages over
      coupled networks need them (docs/infinite_width.md).
    - `key`: a JAX key; the weights of each layer have their own stream of it.

    **Attributes:**

    - `hidden_weight`: u (M, d), float64.
    - `hidden_bias`: b (M,), float64, or None.
    - `output_weight`: v (M, C), float64.

    **Raises:** `ModelError` for sizes or names with which no network can be made, `PrecisionError` without float64.

    Source: [A] (arXiv 2302.02904), Section 5; Chizat and Bach 2018 for the particle view.
    """

    hidden_weight: Float[Array, "width input_dim"]
    hidden_bias: Float[Array, " width"] | None
    output_weight: Float[Array, "width output_dim"]
    activation: Activation
    output_scale: float = eqx.field(static=True)
    output_exponent: float = eqx.field(static=True)

    def __init__(
        self,
        input_dim: int,
        width: int,
        output_dim: int = 1,
        activation: str | Activation | Callable[[Array], Array] = "silu",
        init_scale: float = 1.0,
        output_init_scale: float = 0.0,
        bias: bool = True,
        output_scale: float = 1.0,
        output_exponent: float = 1.0,
        block: int = 0,
        *,
        key: Any,
    ):
        input_dim, width, output_dim = require_positive_int(
            ModelError, input_dim=input_dim, width=width, output_dim=output_dim
        )
        init_scale = require_init_scale(init_scale)
        (bias,) = require_bool(ModelError, bias=bias)
        (output_init_scale,) = require_non_negative(ModelError, output_init_scale=output_init_scale)
        output_scale = require_number(ModelError, "output_scale", output_scale, above=0.0)
        output_exponent = require_number(ModelError, "output_exponent", output_exponent, least=0.0, most=4.0)
        block = require_integer(ModelError, "block", block, least=0)
        require_float64((), "MeanFieldNetwork")
        last = (block + 1) * width
        require_memory_for_weights("MeanFieldNetwork", last * (input_dim + output_dim + 1))

        def drawn(name: str, *shape: int) -> Array:
            # A longer draw begins with the shorter ones of its key.
            return jr.normal(stream(key, name), (last, *shape))[block * width :]

        self.hidden_weight = init_scale * drawn("hidden_weight", input_dim)
        self.hidden_bias = init_scale * drawn("hidden_bias") if bias else None
        self.output_weight = output_init_scale * drawn("output_weight", output_dim)
        self.activation = get_activation(activation)
        self.output_scale = output_scale
        self.output_exponent = output_exponent

    def __check_init__(self):
        require_number(ModelError, "output_scale", self.output_scale, above=0.0)
        require_number(ModelError, "output_exponent", self.output_exponent, least=0.0, most=4.0)

    @classmethod
    def from_arrays(
        cls,
        hidden_weight: Any,
        hidden_bias: Any,
        output_weight: Any,
        activation: str | Activation | Callable[[Array], Array] = "silu",
        output_scale: float = 1.0,
        output_exponent: float = 1.0,
    ) -> "MeanFieldNetwork":
        """A network of given particles.

        **Arguments:**

        - `hidden_weight`: u (M, d).
        - `hidden_bias`: b (M,), or None.
        - `output_weight`: v (M, C) or (M,).
        - `activation`, `output_scale`, `output_exponent`: as in the constructor.

        **Raises:** `ModelError` if the shapes do not fit together or an entry is not finite.
        """
        require_float64((), "MeanFieldNetwork.from_arrays")
        hidden_weight = jnp.asarray(hidden_weight, dtype=jnp.float64)
        hidden_bias = None if hidden_bias is None else jnp.asarray(hidden_bias, dtype=jnp.float64)
        output_weight = jnp.asarray(output_weight, dtype=jnp.float64)
        if output_weight.ndim == 1:
            output_weight = output_weight[:, None]
        if hidden_weight.ndim != 2 or output_weight.ndim != 2 or hidden_weight.shape[0] != output_weight.shape[0]:
            raise ModelError(
                f"hidden_weight has shape {hidden_weight.shape} and output_weight {output_weight.shape}; "
                "expected (M, d) and (M, C) with the same number M of particles."
            )
        if 0 in (*hidden_weight.shape, *output_weight.shape):
            raise ModelError(
                f"hidden_weight has shape {hidden_weight.shape} and output_weight {output_weight.shape}; a network needs at "
                "least one particle, input and output."
            )
        if hidden_bias is not None and hidden_bias.shape != (hidden_weight.shape[0],):
            raise ModelError(f"hidden_bias has shape {hidden_bias.shape}; expected ({hidden_weight.shape[0]},).")
        for name, array in (
            ("hidden_weight", hidden_weight),
            ("hidden_bias", hidden_bias),
            ("output_weight", output_weight),
        ):
            if array is not None and not bool(jnp.all(jnp.isfinite(array))):
                raise ModelError(f"{name} holds NaN or infinite entries; a network needs finite weights.")
        # The constructor would draw weights, so the fields are set instead.
        model = object.__new__(cls)
        fields = {
            "hidden_weight": hidden_weight,
            "hidden_bias": hidden_bias,
            "output_weight": output_weight,
            "activation": get_activation(activation),
            "output_scale": require_number(ModelError, "output_scale", output_scale, above=0.0),
            "output_exponent": require_number(ModelError, "output_exponent", output_exponent, least=0.0, most=4.0),
        }
        for name, field in fields.items():
            object.__setattr__(model, name, field)
        return model

    @property
    def width(self) -> int:
        """The number M of particles."""
        return self.hidden_weight.shape[0]

    @property
    def output_factor(self) -> float:
        """alpha / M^s, the factor of the sum over particles."""
        return self.output_scale / self.width**self.output_exponent

    @property
    def mobility(self) -> float:
        """The m of w' = -m grad L in the particle metric: M^(2s - 1), so that the flow's speed does not depend on M.

        It is M for the mean-field scaling (the Wasserstein gradient flow of Chizat and Bach 2018) and 1 for the NTK's.
        """
        return float(self.width) ** (2 * self.output_exponent - 1)

    @property
    def weight_groups(self) -> dict[str, tuple[str, ...]]:
        """The layers by the names that `gnflow.flows.Frozen` takes."""
        return {"hidden": ("hidden_weight", "hidden_bias"), "output": ("output_weight",)}

    @property
    def activations(self) -> tuple[Activation, ...]:
        """The activation of the hidden layer; the rest of the network is sums and products."""
        return (self.activation,)

    def pre_activations(self, x: Float[Array, " input_dim"]) -> tuple[Float[Array, " width"], ...]:
        """z_i = u_i . x + b_i for every particle, (M,): what its activation is applied to."""
        z = self.hidden_weight @ x
        return (z if self.hidden_bias is None else z + self.hidden_bias,)

    def hidden_features(self, x: Float[Array, " input_dim"]) -> Float[Array, " width"]:
        """s(u_i . x + b_i) for every particle, (M,): what the output layer combines linearly."""
        return self.activation(self.pre_activations(x)[0])

    def __call__(self, x: Float[Array, " input_dim"]) -> Float[Array, " output_dim"]:
        """The output (C,) at one input (d,)."""
        return self.output_factor * (self.hidden_features(x) @ self.output_weight)
