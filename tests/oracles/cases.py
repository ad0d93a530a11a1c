"""The one list of models, losses, sizes and seeds that every fast path is compared with a dense oracle on.

All sizes differ (N = 4, n = 6, d = 2, M = 5, C = 1 or 3), so that a wrong axis cannot pass unseen, and they are the
same in every case, so that little is compiled twice. Numbers come from NumPy for the same reason.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from gnflow.losses import AbstractLoss, HuberLoss, LogisticLoss, SoftmaxCrossEntropy, SquaredLoss
from gnflow.models import MLP, Centred, Linearised, MeanFieldNetwork, RandomFeatures, ReversibleMLP
from gnflow.problems import Problem

NUM_TRAIN, NUM_TEST, INPUT_DIM, WIDTH = 4, 6, 2, 5


def random_like(tree: Any, seed: int) -> Any:
    """Standard normal numbers in place of every floating array of `tree`."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)) if eqx.is_inexact_array(leaf) else leaf, tree
    )


def displaced(tree: Any, seed: int, scale: float = 0.3) -> Any:
    """`tree` with noise added to every floating array, so that no weight is zero or at its start."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + scale * rng.normal(size=leaf.shape)) if eqx.is_inexact_array(leaf) else leaf,
        tree,
    )


@dataclasses.dataclass(frozen=True)
class ModelKind:
    """A way to make a model, and which of its leaves are trained under which name.

    **Attributes:** `make(key, num_outputs)`; `leaves(model)`: the trained arrays in the order in which the tree holds
    them, written out by hand for the oracles; `trainable`: what `System` is told; `output_counts`: the C to try.
    """

    make: Callable[[Any, int], Any]
    leaves: Callable[[Any], list[Any]]
    trainable: str | tuple[str, ...] = "all"
    output_counts: tuple[int, ...] = (3,)


def _particles(model: Any) -> list[Any]:
    return [model.hidden_weight, model.hidden_bias, model.output_weight]


def _particles_without_bias(model: Any) -> list[Any]:
    return [model.hidden_weight, model.output_weight]


def _layers(model: Any) -> list[Any]:
    return [part for layer in model.layers for part in (layer.weight, layer.bias)]


def _layers_without_bias(model: Any) -> list[Any]:
    return [layer.weight for layer in model.layers]


def _output_weight(model: Any) -> list[Any]:
    return [model.output_weight]


def _mean_field(activation: str = "silu", bias: bool = True, scale: float = 1.0, exponent: float = 1.0) -> Callable:
    def make(key: Any, num_outputs: int) -> MeanFieldNetwork:
        return MeanFieldNetwork(
            INPUT_DIM,
            WIDTH,
            num_outputs,
            activation,
            output_init_scale=1.0,
            bias=bias,
            output_scale=scale,
            output_exponent=exponent,
            key=key,
        )

    return make


def _mlp(depth: int, activation: str, parametrisation: Any, bias: bool = True, scale: float = 1.0) -> Callable:
    def make(key: Any, num_outputs: int) -> MLP:
        model = MLP(
            INPUT_DIM, WIDTH, depth, num_outputs, activation, parametrisation, bias=bias, output_scale=scale, key=key
        )
        return displaced(model, seed=1)

    return make


def _random_features(key: Any, num_outputs: int) -> RandomFeatures:
    return RandomFeatures(INPUT_DIM, WIDTH, num_outputs, "tanh", output_init_scale=1.0, output_scale=2.0, key=key)


def _equinox_mlp(key: Any, num_outputs: int) -> eqx.nn.MLP:
    return eqx.nn.MLP(INPUT_DIM, num_outputs, WIDTH, 1, activation=jnp.tanh, key=key)


def _equinox_scalar(key: Any, num_outputs: int) -> eqx.nn.MLP:
    return eqx.nn.MLP(INPUT_DIM, "scalar", WIDTH, 2, activation=jax.nn.softplus, key=key)


class Convolutional(eqx.Module):
    """A convolution of the d features of an input, and a linear layer."""

    conv: eqx.nn.Conv1d
    last: eqx.nn.Linear

    def __call__(self, x: Any) -> Any:
        return self.last(jnp.tanh(self.conv(x[None, :])).reshape(-1))


def _convolutional(key: Any, num_outputs: int) -> Convolutional:
    conv, last = jr.split(key)
    return Convolutional(
        eqx.nn.Conv1d(1, 2, 2, padding=1, key=conv), eqx.nn.Linear(2 * (INPUT_DIM + 1), num_outputs, key=last)
    )


def _reversible(key: Any, num_outputs: int) -> ReversibleMLP:
    # Two features make halves of one, and at most two outputs.
    return displaced(ReversibleMLP(INPUT_DIM, WIDTH, 2, num_outputs, "silu", key=key), seed=3)


def _half_blocks(model: Any) -> list[Any]:
    return [model.weight, model.bias]


def _linearised(base: Callable) -> Callable:
    def make(key: Any, num_outputs: int) -> Linearised:
        model = Linearised(base(key, num_outputs))
        # Away from the point of expansion, where a linearised model and its base differ.
        moved = displaced(model.weights, seed=2)
        return eqx.tree_at(lambda m: jax.tree.leaves(m.weights), model, jax.tree.leaves(moved))

    return make


def _centred(base: Callable) -> Callable:
    def make(key: Any, num_outputs: int) -> Centred:
        model = Centred(base(key, num_outputs))
        # Away from the start, where all outputs are zero.
        return eqx.tree_at(lambda m: m.model, model, displaced(model.model, seed=4))

    return make


MODELS: dict[str, ModelKind] = {
    "mean field silu": ModelKind(_mean_field(), _particles, output_counts=(1, 3)),
    "mean field relu without bias, 1/sqrt(M)": ModelKind(
        _mean_field("relu", bias=False, exponent=0.5), _particles_without_bias
    ),
    "mean field tanh, 3/M^0.75": ModelKind(_mean_field("tanh", scale=3.0, exponent=0.75), _particles),
    "mean field erf": ModelKind(_mean_field("erf"), _particles),
    "mean field gelu": ModelKind(_mean_field("gelu"), _particles, output_counts=(1,)),
    "mean field softplus": ModelKind(_mean_field("softplus"), _particles),
    "mean field sigmoid": ModelKind(_mean_field("sigmoid"), _particles),
    "mean field identity without bias": ModelKind(_mean_field("identity", bias=False), _particles_without_bias),
    "mlp depth 1, ntk": ModelKind(_mlp(1, "silu", "ntk"), _layers, output_counts=(1,)),
    "mlp depth 2, mean field": ModelKind(_mlp(2, "gelu", "mean_field"), _layers, output_counts=(1, 3)),
    "mlp depth 2, output scale 3": ModelKind(_mlp(2, "tanh", "mean_field", scale=3.0), _layers, output_counts=(1,)),
    "mlp depth 3, ntk without bias": ModelKind(_mlp(3, "tanh", "ntk", bias=False), _layers_without_bias),
    "random features": ModelKind(_random_features, _output_weight, output_counts=(1, 3)),
    "equinox mlp": ModelKind(_equinox_mlp, _layers, output_counts=(1, 3)),
    "equinox scalar": ModelKind(_equinox_scalar, _layers, output_counts=(1,)),
    "convolutional": ModelKind(
        _convolutional, lambda m: [m.conv.weight, m.conv.bias, m.last.weight, m.last.bias], output_counts=(1,)
    ),
    "linearised mean field": ModelKind(_linearised(_mean_field()), lambda m: _particles(m.weights)),
    "linearised mlp": ModelKind(_linearised(_mlp(2, "tanh", "ntk")), lambda m: _layers(m.weights)),
    "linearised random features": ModelKind(_linearised(_random_features), lambda m: [m.weights.output_weight]),
    "linearised equinox scalar": ModelKind(
        _linearised(_equinox_scalar), lambda m: _layers(m.weights), output_counts=(1,)
    ),
    "centred mlp": ModelKind(_centred(_mlp(2, "tanh", "mean_field")), lambda m: _layers(m.model)),
    "centred equinox scalar": ModelKind(_centred(_equinox_scalar), lambda m: _layers(m.model), output_counts=(1,)),
    "frozen centred mean field: output": ModelKind(
        _centred(_mean_field()), lambda m: _output_weight(m.model), "output", output_counts=(1,)
    ),
    "linearised centred mean field": ModelKind(
        _linearised(_centred(_mean_field())), lambda m: _particles(m.weights.model), output_counts=(1,)
    ),
    "frozen mean field: output": ModelKind(_mean_field(), _output_weight, "output"),
    "frozen mean field: hidden": ModelKind(
        _mean_field(), lambda m: [m.hidden_weight, m.hidden_bias], "hidden", output_counts=(1, 3)
    ),
    "frozen mean field: hidden_bias": ModelKind(_mean_field(), lambda m: [m.hidden_bias], "hidden_bias"),
    "frozen mean field: two leaves": ModelKind(
        _mean_field("tanh"), _particles_without_bias, ("hidden_weight", "output_weight")
    ),
    "frozen mlp: output": ModelKind(
        _mlp(2, "silu", "ntk"), lambda m: [m.layers[2].weight, m.layers[2].bias], ("output",)
    ),
    "frozen mlp: hidden": ModelKind(_mlp(1, "silu", "ntk"), lambda m: [m.layers[0].weight, m.layers[0].bias], "hidden"),
    "frozen mlp: layer and leaf": ModelKind(
        _mlp(2, "silu", "mean_field"),
        lambda m: [m.layers[0].weight, m.layers[0].bias, m.layers[1].bias],
        ("layers[1].bias", "layers[0]"),
    ),
    "frozen equinox mlp: leaf": ModelKind(_equinox_mlp, lambda m: [m.layers[0].weight], "layers[0].weight"),
    "frozen linearised: leaf": ModelKind(
        _linearised(_mean_field()), lambda m: [m.weights.hidden_weight], "weights.hidden_weight"
    ),
    "reversible": ModelKind(_reversible, _half_blocks, output_counts=(1, 2)),
    "frozen reversible: bias": ModelKind(_reversible, lambda m: [m.bias], "bias", output_counts=(1,)),
}

LOSSES: dict[str, AbstractLoss] = {
    "squared": SquaredLoss(),
    "softmax": SoftmaxCrossEntropy(),
    "logistic": LogisticLoss(),
    "huber": HuberLoss(0.5),
}


def targets_for(loss: AbstractLoss, rng: np.random.Generator, num_samples: int, num_outputs: int) -> np.ndarray:
    """Random canonical targets (N, C) of a kind that `loss` takes."""
    if isinstance(loss, SoftmaxCrossEntropy):
        return np.eye(num_outputs)[rng.integers(num_outputs, size=num_samples)]
    if isinstance(loss, LogisticLoss):
        return rng.integers(2, size=(num_samples, num_outputs)).astype(float)
    return rng.normal(size=(num_samples, num_outputs))


def make_problem(loss: AbstractLoss, num_outputs: int, seed: int, num_train: int = NUM_TRAIN) -> Problem:
    """A random problem of the suite's sizes."""
    rng = np.random.default_rng(seed)
    return Problem(
        rng.normal(size=(num_train, INPUT_DIM)),
        targets_for(loss, rng, num_train, num_outputs),
        rng.normal(size=(NUM_TEST, INPUT_DIM)),
        targets_for(loss, rng, NUM_TEST, num_outputs),
        loss=loss,
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """One model on one problem."""

    kind: str
    loss: str
    num_outputs: int
    seed: int

    @property
    def trainable(self) -> str | tuple[str, ...]:
        """The names of the weights that move."""
        return MODELS[self.kind].trainable

    def leaves(self, tree: Any) -> list[Any]:
        """The trained arrays of a model, or of a tree like its weights."""
        return MODELS[self.kind].leaves(tree)

    @functools.cached_property
    def model(self) -> Any:
        """The model, at weights of no special kind."""
        return MODELS[self.kind].make(jr.key(self.seed), self.num_outputs)

    @functools.cached_property
    def problem(self) -> Problem:
        """The data."""
        return make_problem(LOSSES[self.loss], self.num_outputs, self.seed)

    def __str__(self) -> str:
        return f"{self.kind} | {self.loss}, C={self.num_outputs}, seed {self.seed}"


def _all_cases() -> list[Case]:
    # The losses take turns over the models, so that every one meets many models without the whole product.
    turns = {
        1: ("squared", "logistic", "huber"),
        2: ("softmax",),
        3: ("softmax", "squared", "logistic", "softmax", "huber"),
    }
    return [
        Case(kind, turns[count][number % len(turns[count])], count, seed=100 * count + number)
        for number, (kind, made) in enumerate(MODELS.items())
        for count in made.output_counts
    ]


CASES: list[Case] = _all_cases()

# One case for each closed form and each wrapper: enough where every flow meets every model.
FEW_CASES: list[Case] = [
    case
    for case in CASES
    if (case.kind, case.num_outputs)
    in {
        ("mean field silu", 3),
        ("mlp depth 2, mean field", 1),
        ("random features", 3),
        ("equinox scalar", 1),
        ("linearised mlp", 3),
        ("frozen mean field: hidden", 1),
    }
]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
few_cases = pytest.mark.parametrize("case", FEW_CASES, ids=str)
