"""Random features: a fixed feature map and a trained linear output layer."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ._activations import Activation
from ._mean_field import MeanFieldNetwork


class RandomFeatures(eqx.Module):
    """f(x) = (alpha / M^s) sum_i v_i s(u_i . x + b_i) with u_i, b_i drawn once and never trained.

    The model is linear in its weights v, so every flow on it is exactly the linearised one (fact 3 of docs/theory.md). Its
    dynamics are those of `gnflow.flows.Frozen(flow, trainable="output")` on a `MeanFieldNetwork`, but its only weights are v.

    **Arguments:** those of `MeanFieldNetwork`, or an existing one through `RandomFeatures.of(network)`.

    **Attributes:**

    - `output_weight`: v (M, C), trained.
    - `features`: the network whose hidden layer computes the features; it is not trained.
    """

    output_weight: Float[Array, "width output_dim"]
    features: MeanFieldNetwork

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
        *,
        key: Any,
    ):
        network = MeanFieldNetwork(
            input_dim,
            width,
            output_dim,
            activation,
            init_scale,
            output_init_scale,
            bias,
            output_scale,
            output_exponent,
            key=key,
        )
        self.output_weight = network.output_weight
        self.features = network

    @classmethod
    def of(cls, network: MeanFieldNetwork) -> "RandomFeatures":
        """The random-features model with the hidden layer and the present output weights of `network`."""
        model = object.__new__(cls)
        object.__setattr__(model, "output_weight", network.output_weight)
        object.__setattr__(model, "features", network)
        return model

    @property
    def network(self) -> MeanFieldNetwork:
        """The two-layer network that computes the same function."""
        return eqx.tree_at(lambda network: network.output_weight, self.features, self.output_weight)

    @property
    def width(self) -> int:
        """The number M of features."""
        return self.features.width

    @property
    def mobility(self) -> float:
        """The mobility of the two-layer network: M^(2s - 1)."""
        return self.features.mobility

    @property
    def weight_groups(self) -> dict[str, tuple[str, ...]]:
        """The layers by the names that `gnflow.flows.Frozen` takes."""
        return {"output": ("output_weight",)}

    def trainable_mask(self) -> "RandomFeatures":
        """True at the output weights alone."""
        nothing = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda model: model.output_weight, nothing, True)

    @property
    def activations(self) -> tuple[Activation, ...]:
        """(): the outputs are linear in the trained weights."""
        return ()

    def hidden_features(self, x: Float[Array, " input_dim"]) -> Float[Array, " width"]:
        """The fixed features s(u_i . x + b_i), (M,)."""
        return self.features.hidden_features(x)

    def __call__(self, x: Float[Array, " input_dim"]) -> Float[Array, " output_dim"]:
        """The output (C,) at one input (d,)."""
        return self.network(x)
