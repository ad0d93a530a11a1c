"""The problems that solvers are chosen for: models, losses, sizes and flows of different kinds, and targets of the loss."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

import gnflow as gn

_KEY = jr.key(20230206)
_INPUT_DIM = 64  # that of digits, for all but the two-layer network on a teacher
_NUM_DIGITS = 1000  # beyond it samples are synthetic


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem, to one target or several.

    **Attributes:** `model`: "two_layer", "mlp" or "cnn"; `loss`: "squared", "softmax" or "logistic", or an equation, whose
    residuals are squared; `size`: NC, for an equation the points along an axis; `flow`: "gradient", "spectral", "gauss_newton"
    or "gauss_newton_falling", whose damping falls; `targets`: relative losses.
    """

    model: str
    loss: str
    size: int
    flow: str
    targets: tuple[float, ...]

    @property
    def name(self) -> str:
        """In one word."""
        return f"{self.flow}-{self.model}-{self.loss}-{self.size}"

    def build(self) -> tuple[gn.Problem, Any, Any]:
        """(problem, model, flow)."""
        if self.loss in _EQUATIONS:
            return *_EQUATIONS[self.loss](self.size), _FLOWS[self.flow]()
        num_outputs = 1 if self.loss == "logistic" or (self.model == "two_layer" and self.loss == "squared") else 10
        problem = _problem(self.loss, self.size // num_outputs, num_outputs)
        return problem, _MODELS[self.model](problem.x_train.shape[1], num_outputs), _FLOWS[self.flow]()


# Targets that a case is run to; far ones where every kind of solver would take hours are left out.
CASES = (
    Case("two_layer", "squared", 50, "gradient", (1e-1, 1e-3, 1e-8)),
    Case("two_layer", "squared", 500, "gradient", (1e-1, 1e-3, 1e-8)),
    Case("two_layer", "squared", 5000, "gradient", (1e-1,)),
    Case("two_layer", "softmax", 50, "gradient", (1e-3,)),
    Case("two_layer", "softmax", 500, "gradient", (1e-1, 1e-3)),
    Case("two_layer", "softmax", 5000, "gradient", (1e-1,)),
    Case("two_layer", "logistic", 50, "gradient", (1e-3,)),
    Case("two_layer", "logistic", 500, "gradient", (1e-1, 1e-3)),
    Case("mlp", "squared", 50, "gradient", (1e-3, 1e-8)),
    Case("mlp", "squared", 500, "gradient", (1e-1, 1e-3, 1e-8)),
    Case("mlp", "squared", 5000, "gradient", (1e-1,)),
    Case("mlp", "softmax", 50, "gradient", (1e-3,)),
    Case("mlp", "softmax", 500, "gradient", (1e-1, 1e-3)),
    Case("mlp", "softmax", 5000, "gradient", (1e-1, 1e-3)),
    Case("mlp", "softmax", 50_000, "gradient", (3e-1,)),
    Case("mlp", "logistic", 500, "gradient", (1e-3,)),
    Case("cnn", "squared", 50, "gradient", (1e-3,)),
    Case("cnn", "squared", 500, "gradient", (1e-1,)),
    Case("cnn", "softmax", 500, "gradient", (1e-1, 1e-3)),
    Case("cnn", "softmax", 5000, "gradient", (1e-1,)),
    Case("cnn", "logistic", 50, "gradient", (1e-3,)),
    Case("two_layer", "squared", 50, "spectral", (1e-8,)),
    Case("two_layer", "squared", 500, "spectral", (1e-3,)),
    Case("mlp", "softmax", 500, "spectral", (1e-1,)),
    Case("cnn", "logistic", 50, "spectral", (1e-3,)),
    Case("two_layer", "squared", 50, "gauss_newton", (1e-3, 1e-8)),
    Case("two_layer", "squared", 500, "gauss_newton", (1e-3, 1e-8)),
    Case("mlp", "softmax", 500, "gauss_newton", (1e-1,)),
    Case("cnn", "logistic", 50, "gauss_newton", (1e-3,)),
    Case("mlp", "poisson", 8, "gradient", (1e-3,)),
    Case("mlp", "poisson", 20, "gradient", (1e-3,)),
    Case("mlp", "burgers", 20, "gradient", (1e-3,)),
    Case("mlp", "poisson", 20, "spectral", (1e-4,)),
    Case("mlp", "poisson", 8, "gauss_newton_falling", (1e-3, 1e-8)),
    Case("mlp", "poisson", 20, "gauss_newton_falling", (1e-3, 1e-8)),
    Case("mlp", "burgers", 20, "gauss_newton_falling", (1e-3, 1e-6)),
)


class SmallCNN(eqx.Module):
    """Two convolutions with strides on images of 8 x 8 pixels, given flat, and a linear layer."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    last: eqx.nn.Linear

    def __init__(self, num_outputs: int, *, key: Any):
        keys = jr.split(key, 3)
        self.first = eqx.nn.Conv2d(1, 8, 3, stride=2, padding=1, key=keys[0])
        self.second = eqx.nn.Conv2d(8, 16, 3, stride=2, padding=1, key=keys[1])
        self.last = eqx.nn.Linear(64, num_outputs, key=keys[2])

    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs (C,) of one image (64,)."""
        hidden = jnp.tanh(self.second(jnp.tanh(self.first(x.reshape(1, 8, 8)))))
        return self.last(hidden.reshape(-1))


def _problem(loss: str, num_train: int, num_outputs: int) -> gn.Problem:
    if loss == "squared" and num_outputs == 1:
        return gn.problems.teacher_student(num_train, 100, input_dim=10, key=_KEY)
    inputs, labels = _images(num_train + 100)
    hot = jnp.asarray(jax.nn.one_hot(labels, 10))
    targets = {"squared": hot, "softmax": hot, "logistic": (labels % 2).astype(float)[:, None]}[loss]
    kinds = {
        "squared": gn.losses.SquaredLoss(),
        "softmax": gn.losses.SoftmaxCrossEntropy(),
        "logistic": gn.losses.LogisticLoss(),
    }
    train, test = slice(None, num_train), slice(num_train, None)
    return gn.Problem(inputs[train], targets[train], inputs[test], targets[test], loss=kinds[loss])


def _images(number: int) -> tuple[jax.Array, jax.Array]:
    """Handwritten digits and their classes; beyond `_NUM_DIGITS`, mixtures of two of them with noise, of the class of one."""
    digits = gn.problems.digits(_NUM_DIGITS, 0, key=_KEY)
    images, labels = digits.x_train, jnp.argmax(digits.y_train, axis=1)
    if number <= _NUM_DIGITS:
        return images[:number], labels[:number]
    first, second, noise = jr.split(_KEY, 3)
    one, other = (jr.randint(key, (number,), 0, _NUM_DIGITS) for key in (first, second))
    return 0.7 * images[one] + 0.3 * images[other] + 0.1 * jr.normal(noise, (number, _INPUT_DIM)), labels[one]


# With 129 weights for 96 or 480 residuals (Poisson), and with 337 for 480 (Burgers).
_EQUATIONS: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "poisson": lambda points: (
        gn.problems.poisson(points_per_axis=points, boundary_weight=100.0),
        gn.models.MLP(2, 32, 1, 1, activation="tanh", key=_KEY),
    ),
    "burgers": lambda points: (
        gn.problems.burgers(points_per_axis=points, boundary_weight=100.0, initial_weight=100.0),
        gn.models.MLP(2, 16, 2, 1, activation="tanh", key=_KEY),
    ),
}

_MODELS: dict[str, Callable[[int, int], Any]] = {
    "two_layer": lambda input_dim, outputs: gn.models.MeanFieldNetwork(input_dim, 500, outputs, key=_KEY),
    "mlp": lambda input_dim, outputs: gn.models.MLP(input_dim, 128, 2, outputs, activation="tanh", key=_KEY),
    "cnn": lambda _, outputs: SmallCNN(outputs, key=_KEY),
}

_FLOWS: dict[str, Callable[[], Any]] = {
    "gradient": gn.flows.GradientFlow,
    "spectral": lambda: gn.flows.SpectralFlow(power=0.5, damping=gn.damping.Constant(1e-6)),
    "gauss_newton": lambda: gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(1e-4)),
    "gauss_newton_falling": lambda: gn.flows.GaussNewtonFlow(
        damping=gn.damping.Exponential(start=1e-2, rate=2.0, floor=1e-14)
    ),
}
