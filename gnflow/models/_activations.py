"""Activation functions, each with its derivative from one evaluation of the transcendental part."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import ModelError, look_up

_Elementwise = Callable[[Array], tuple[Array, Array]]


class Activation(eqx.Module):
    """An elementwise function s together with s'.

    The activation over all samples and particles costs as much as half an N x M x N product, so whoever needs both s(z)
    and s'(z) asks for them at once (`value_and_derivative`), which shares the exponential or error function.

    **Attributes:** `name`: what configurations call it; `homogeneous`: whether s(c z) = c s(z) for all c > 0 (then gradient
    flow conserves ||u~_i||^2 - v_i^2 for every particle); `kinks`: the z at which s' jumps, ascending; between them s is
    infinitely differentiable, so that one without kinks is so everywhere.
    """

    name: str = eqx.field(static=True)
    homogeneous: bool = eqx.field(static=True)
    kinks: tuple[float, ...] = eqx.field(static=True, default=())

    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """s(z), elementwise."""
        return _FUNCTIONS[self.name](z)[0]

    def value_and_derivative(self, z: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(s(z), s'(z)), elementwise. At ReLU's kink s'(0) = 0."""
        return _FUNCTIONS[self.name](z)


def _silu(z: Array) -> tuple[Array, Array]:
    gate = jax.nn.sigmoid(z)
    value = z * gate
    return value, gate + value * (1 - gate)


def _relu(z: Array) -> tuple[Array, Array]:
    return jax.nn.relu(z), (z > 0).astype(z.dtype)


def _tanh(z: Array) -> tuple[Array, Array]:
    value = jnp.tanh(z)
    return value, 1 - value * value


def _erf(z: Array) -> tuple[Array, Array]:
    return jax.scipy.special.erf(z), (2 / math.sqrt(math.pi)) * jnp.exp(-z * z)


def _gelu(z: Array) -> tuple[Array, Array]:
    # The exact GELU z Phi(z), not its tanh approximation.
    distribution = 0.5 * jax.scipy.special.erfc(-z / math.sqrt(2))
    density = jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return z * distribution, distribution + z * density


def _softplus(z: Array) -> tuple[Array, Array]:
    return jax.nn.softplus(z), jax.nn.sigmoid(z)


def _sigmoid(z: Array) -> tuple[Array, Array]:
    value = jax.nn.sigmoid(z)
    return value, value * (1 - value)


def _identity(z: Array) -> tuple[Array, Array]:
    return z, jnp.ones_like(z)


_FUNCTIONS: dict[str, _Elementwise] = {
    "silu": _silu,
    "relu": _relu,
    "tanh": _tanh,
    "erf": _erf,
    "gelu": _gelu,
    "softplus": _softplus,
    "sigmoid": _sigmoid,
    "identity": _identity,
}

# Where s' jumps, of those whose s' does.
_KINKS: dict[str, tuple[float, ...]] = {"relu": (0.0,)}

activation_names: tuple[str, ...] = tuple(_FUNCTIONS)


def get_activation(name: Any) -> Activation:
    """The activation called `name` (or `name` itself if it is an `Activation`).

    **Raises:** `ModelError` for an unknown name, with the nearest valid one.
    """
    if isinstance(name, Activation):
        return name
    look_up(name, _FUNCTIONS, "activation", ModelError)
    return Activation(name=name, homogeneous=name in ("relu", "identity"), kinks=_KINKS.get(name, ()))
