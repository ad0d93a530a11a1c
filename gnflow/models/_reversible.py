"""A deep network that can be run backwards, for which exact Gauss-Newton directions are tractable."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float

from .._core import (
    ModelError,
    load_lapack,
    nearest_name,
    require_float64,
    require_integer,
    require_non_negative,
    require_number,
    require_positive_int,
    shown,
    stream,
)
from ._activations import Activation, get_activation
from ._checks import require_depth, require_memory_for_weights

_ORTHONORMAL = 1e-8  # the largest difference between an entry of u^T u and the identity

# The sizes in the released code of Buffelli et al. (arXiv 2411.07979). The constructor's defaults are its other numbers.
_PRESETS: dict[str, dict[str, Any]] = {
    "mnist": {"width": 784, "bottleneck": 8000, "num_blocks": 2, "output_dim": 10},
    "cifar10": {"width": 3072, "bottleneck": 8000, "num_blocks": 6, "output_dim": 10},
}


class HalfBlock(eqx.Module):
    """F(z) = s(z C) W^T + b, a function of m features. Only W and b are trained.

    **Attributes:**

    - `frozen_weight`: C (m, h).
    - `weight`: W (m, h).
    - `bias`: b (m,).
    - `linear`: whether s is the identity, instead of `activation`. It is an array, so that blocks of both kinds can be scanned.
    - `activation`: s of a block that is not linear.
    """

    frozen_weight: Float[Array, "features bottleneck"]
    weight: Float[Array, "features bottleneck"]
    bias: Float[Array, " features"]
    linear: Bool[Array, ""]
    activation: Activation

    def features_and_slopes(
        self, z: Float[Array, "*samples features"]
    ) -> tuple[Float[Array, "*samples bottleneck"], Float[Array, "*samples bottleneck"]]:
        """The features s(z C), which W combines linearly, and the slopes s'(z C)."""
        before = z @ self.frozen_weight
        value, slope = self.activation.value_and_derivative(before)
        return jnp.where(self.linear, before, value), jnp.where(self.linear, 1.0, slope)

    def combine(self, features: Float[Array, "*samples bottleneck"]) -> Float[Array, "*samples features"]:
        """F(z), from the features s(z C)."""
        products = features @ self.weight.T
        return products + self.bias.reshape((1,) * (products.ndim - 1) + self.bias.shape)

    def derivative(
        self, slopes: Float[Array, "*samples bottleneck"], r: Float[Array, "*samples features"]
    ) -> Float[Array, "*samples features"]:
        """F'(z) r, from the slopes s'(z C)."""
        return (slopes * (r @ self.frozen_weight)) @ self.weight.T

    def __call__(self, z: Float[Array, "*samples features"]) -> Float[Array, "*samples features"]:
        """F(z) for one z or for many."""
        return self.combine(self.features_and_slopes(z)[0])


class ReversibleMLP(eqx.Module):
    """`num_blocks` reversible blocks on d features and a frozen projection to C outputs: f(x) = block_L(... block_1(x)) u.

    A block couples the two halves of its features additively, y1 = x1 + F(x2), y2 = x2 + G(y1) (Dinh et al. 2014), with
    half-blocks F(z) = s(z C) W^T + b, and likewise G. Only W and b are trained. C ~ N(0, frozen_scale^2/h), W ~
    N(0, init_scale^2), b = 0 at the start, so that the network begins close to x u; u (d, C) has orthonormal columns (QR of a
    Gaussian matrix).
    Source: Buffelli et al., arXiv 2411.07979, Section 4, in the form of its released code.

    **Arguments:**

    - `width`: the number d of features of an input, even.
    - `bottleneck`: the number h of units in each half-block.
    - `num_blocks`: the number L of blocks.
    - `output_dim`: the number of outputs, at most d.
    - `activation`: s of the blocks that are not linear.
    - `linear_blocks`: the blocks whose s is the identity, counted from 0 (the first one in [B]'s settings).
    - `frozen_scale`: sqrt(h) times the standard deviation of C, > 0.
    - `init_scale`: the standard deviation of W at the start, >= 0.
    - `key`: a JAX key; each array has its own stream of it.

    **Attributes:**

    - `frozen_weight`: C (L, 2, d/2, h), of F and G of each block.
    - `weight`: W (L, 2, d/2, h).
    - `bias`: b (L, 2, d/2).
    - `output_projection`: u (d, C), frozen.
    - `activation`, `linear_blocks`: as the arguments.

    **Raises:** `ModelError` for sizes or names with which no network can be made, `PrecisionError` without float64.
    """

    frozen_weight: Float[Array, "blocks 2 half_width bottleneck"]
    weight: Float[Array, "blocks 2 half_width bottleneck"]
    bias: Float[Array, "blocks 2 half_width"]
    output_projection: Float[Array, "width output_dim"]
    activation: Activation
    linear_blocks: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        bottleneck: int,
        num_blocks: int,
        output_dim: int = 1,
        activation: str | Activation | Callable[[Array], Array] = "relu",
        linear_blocks: Sequence[int] = (0,),
        frozen_scale: float = 1.0,
        init_scale: float = 1e-3,
        *,
        key: Any,
    ):
        width, bottleneck, num_blocks, output_dim = require_positive_int(
            ModelError, width=width, bottleneck=bottleneck, num_blocks=num_blocks, output_dim=output_dim
        )
        require_depth(num_blocks=num_blocks)
        remedy = "With 0 the half-blocks have no features and cannot learn."
        frozen_scale = require_number(ModelError, "frozen_scale", frozen_scale, above=0.0, remedy=remedy)
        (init_scale,) = require_non_negative(ModelError, init_scale=init_scale)
        _require_halves(width)
        if output_dim > width:
            raise ModelError(
                f"output_dim = {output_dim}, but the {width} features of a reversible network can be projected to at most "
                f"{width} orthonormal outputs; take a larger width."
            )
        require_float64((), "ReversibleMLP")
        require_memory_for_weights("ReversibleMLP", 2 * num_blocks * width * bottleneck)
        shape = (num_blocks, 2, width // 2, bottleneck)
        self.frozen_weight = frozen_scale * bottleneck**-0.5 * jr.normal(stream(key, "frozen_weight"), shape)
        self.weight = init_scale * jr.normal(stream(key, "weight"), shape)
        self.bias = jnp.zeros(shape[:-1])
        gaussian = jr.normal(stream(key, "output_projection"), (width, output_dim))
        load_lapack()
        self.output_projection = jnp.linalg.qr(gaussian)[0]
        self.activation = get_activation(activation)
        self.linear_blocks = _check_linear_blocks(linear_blocks, num_blocks)

    @classmethod
    def from_preset(cls, name: str, *, key: Any) -> "ReversibleMLP":
        """The network of one of [B]'s experiments, at its size.

        **Arguments:**

        - `name`: "mnist" (d = 784, h = 8000, L = 2) or "cifar10" (d = 3072, h = 8000, L = 6).
        - `key`: a JAX key.

        **Raises:** `ModelError` for another name.
        """
        if name not in _PRESETS:
            raise ModelError(f"unknown preset {name!r}; {nearest_name(str(name), _PRESETS)}")
        return cls(**_PRESETS[name], key=key)

    @classmethod
    def from_arrays(
        cls,
        frozen_weight: Any,
        weight: Any,
        bias: Any,
        output_projection: Any,
        activation: str | Activation | Callable[[Array], Array] = "relu",
        linear_blocks: Sequence[int] = (0,),
    ) -> "ReversibleMLP":
        """A network of given arrays.

        **Arguments:**

        - `frozen_weight`: C (L, 2, d/2, h) of the half-blocks F and G of each block.
        - `weight`: W (L, 2, d/2, h).
        - `bias`: b (L, 2, d/2).
        - `output_projection`: u (d, C) with orthonormal columns.
        - `activation`, `linear_blocks`: as in the constructor.

        **Raises:** `ModelError` if the shapes do not fit together, an entry is not finite or u's columns are not orthonormal.
        """
        require_float64((), "ReversibleMLP.from_arrays")
        given = {
            "frozen_weight": frozen_weight,
            "weight": weight,
            "bias": bias,
            "output_projection": output_projection,
        }
        arrays = {name: jnp.asarray(array, dtype=jnp.float64) for name, array in given.items()}
        _check_arrays(arrays)
        # The constructor would draw weights, so the fields are set instead.
        model = object.__new__(cls)
        rest = {
            "activation": get_activation(activation),
            "linear_blocks": _check_linear_blocks(linear_blocks, arrays["weight"].shape[0]),
        }
        for name, field in {**arrays, **rest}.items():
            object.__setattr__(model, name, field)
        return model

    @property
    def width(self) -> int:
        """The number d of features, which is the same in every layer."""
        return self.output_projection.shape[0]

    @property
    def num_blocks(self) -> int:
        """The number L of blocks."""
        return self.weight.shape[0]

    def trainable_mask(self) -> "ReversibleMLP":
        """True at W and b; C and u are frozen."""
        mask = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda model: (model.weight, model.bias), mask, (True, True))

    def scan(self, step: Callable[[Any, tuple[HalfBlock, HalfBlock]], Any], start: Any, reverse: bool = False) -> Any:
        """`jax.lax.scan` of `step`(carry, (F, G)) over the blocks.

        All blocks share one compiled body, and only one block's arrays are in use at a time.

        **Arguments:**

        - `step`: a function of the carry and the two half-blocks (F, G) of a block.
        - `start`: the first carry.
        - `reverse`: whether to go from the last block to the first. Stacked results keep the order of the blocks.
        """
        linear = np.isin(np.arange(self.num_blocks), self.linear_blocks)

        def body(carry: Any, arrays: tuple[Array, Array, Array, Array]) -> Any:
            frozen, weight, bias, is_linear = arrays
            halves = [HalfBlock(frozen[k], weight[k], bias[k], is_linear, self.activation) for k in (0, 1)]
            return step(carry, (halves[0], halves[1]))

        arrays = (self.frozen_weight, self.weight, self.bias, jnp.asarray(linear))
        return jax.lax.scan(body, start, arrays, reverse=reverse)

    @property
    def activations(self) -> tuple[Activation, ...]:
        """The activation of the blocks that are not linear; the rest of the network is sums and products."""
        return (self.activation,) if len(self._curved_blocks) else ()

    def pre_activations(self, x: Float[Array, " width"]) -> tuple[Float[Array, " units"], ...]:
        """z C of the blocks that are not linear, in one array: h numbers for each half-block, in the order F, G, F, G, ..."""

        def step(features: Array, block: tuple[HalfBlock, HalfBlock]) -> tuple[Array, Array]:
            after = _forward(block, features)
            first, second = jnp.split(features, 2)[1], jnp.split(after, 2)[0]
            return after, jnp.stack([first @ block[0].frozen_weight, second @ block[1].frozen_weight])

        curved = self._curved_blocks
        return (self.scan(step, x)[1][curved].reshape(-1),) if len(curved) else ()

    @property
    def _curved_blocks(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self.num_blocks), self.linear_blocks)

    def hidden_features(self, x: Float[Array, "*samples width"]) -> Float[Array, "*samples width"]:
        """The last block's output (d,) at one input or at many, which u projects to the outputs."""
        return self.scan(lambda features, block: (_forward(block, features), None), x)[0]

    def layer_features(self, x: Float[Array, " width"]) -> tuple[Float[Array, " width"], ...]:
        """The output (d,) of each block, first to last."""
        return tuple(self.scan(lambda features, block: (_forward(block, features),) * 2, x)[1])

    def inverse(self, features: Float[Array, "*samples width"]) -> Float[Array, "*samples width"]:
        """The input with the given `hidden_features`, to rounding. Every F and G can be inverted in this way."""
        return self.scan(lambda y, block: (_backward(block, y), None), features, reverse=True)[0]

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " output_dim"]:
        """The output (C,) at one input (d,)."""
        return self.hidden_features(x) @ self.output_projection


def _forward(block: tuple[HalfBlock, HalfBlock], x: Array) -> Array:
    f, g = block
    x1, x2 = jnp.split(x, 2, axis=-1)
    y1 = x1 + f(x2)
    return jnp.concatenate([y1, x2 + g(y1)], axis=-1)


def _backward(block: tuple[HalfBlock, HalfBlock], y: Array) -> Array:
    f, g = block
    y1, y2 = jnp.split(y, 2, axis=-1)
    x2 = y2 - g(y1)
    return jnp.concatenate([y1 - f(x2), x2], axis=-1)


def _require_halves(width: int) -> None:
    if width % 2:
        raise ModelError(
            f"width = {width} is odd, but a reversible block couples two halves of equal size; append a constant feature to "
            "the inputs."
        )


def _check_linear_blocks(linear_blocks: Sequence[int], num_blocks: int) -> tuple[int, ...]:
    if not isinstance(linear_blocks, Sequence | np.ndarray) or np.ndim(linear_blocks) != 1:
        raise ModelError(f"linear_blocks = {shown(linear_blocks)}; expected a list of blocks, 0 to {num_blocks - 1}.")
    return tuple(
        require_integer(ModelError, f"linear_blocks[{place}]", block, least=0, most=num_blocks - 1)
        for place, block in enumerate(linear_blocks)
    )


def _check_arrays(arrays: dict[str, Array]) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    shape = shapes["weight"]
    fits = len(shape) == 4 and shape[1] == 2 and shapes["frozen_weight"] == shape
    fits = fits and 0 not in (*shape, *shapes["output_projection"])
    projection = shapes["output_projection"]
    if not (fits and shapes["bias"] == shape[:3] and len(projection) == 2 and projection[0] == 2 * shape[2]):
        raise ModelError(
            f"the arrays have the shapes {shapes}; expected frozen_weight and weight (L, 2, d/2, h), bias (L, 2, d/2) and "
            "output_projection (d, C)."
        )
    for name, array in arrays.items():
        if not bool(jnp.all(jnp.isfinite(array))):
            raise ModelError(f"{name} holds NaN or infinite entries; a network needs finite weights.")
    columns = arrays["output_projection"]
    away = float(jnp.max(jnp.abs(columns.T @ columns - jnp.eye(columns.shape[1]))))
    if away > _ORTHONORMAL:
        raise ModelError(
            f"the columns of output_projection are not orthonormal (u^T u differs from the identity by {away:.1e}), so an "
            "update of the features would not change the outputs as intended; take jnp.linalg.qr(u)[0]."
        )
