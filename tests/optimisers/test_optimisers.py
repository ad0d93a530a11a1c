"""Optimisers against their published formulas, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnflow import ConfigError
from gnflow.optimisers import SGD, AbstractOptimiser, Adam, Optax, as_optimiser, optimiser_kinds

WEIGHTS = {"moves": np.array([0.5, -2.0, 0.0]), "fixed": None}
GRADIENTS = np.random.default_rng(0).normal(size=(4, 3))


def steps_of(optimiser):
    """The steps for GRADIENTS, one after the other."""
    weights = jax.tree.map(jnp.asarray, WEIGHTS)
    state, steps = optimiser.init(weights), []
    for gradient in GRADIENTS:
        step, state = optimiser.update({"moves": jnp.asarray(gradient), "fixed": None}, state, weights)
        assert step["fixed"] is None
        weights = jax.tree.map(jnp.add, weights, step)
        steps.append(np.asarray(step["moves"]))
    return np.array(steps)


def sgd_steps(rate, momentum, nesterov):
    velocity, steps = np.zeros(3), []
    for gradient in GRADIENTS:
        velocity = momentum * velocity + gradient
        steps.append(-rate * (momentum * velocity + gradient if nesterov else velocity))
    return np.array(steps)


def adam_steps(rate, beta1, beta2, epsilon):
    mean, square, steps = np.zeros(3), np.zeros(3), []
    for number, gradient in enumerate(GRADIENTS, start=1):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        corrected = np.sqrt(square / (1 - beta2**number)) + epsilon
        steps.append(-rate * mean / (1 - beta1**number) / corrected)
    return np.array(steps)


@pytest.mark.parametrize(
    ("optimiser", "expected"),
    [
        (SGD(0.3), -0.3 * GRADIENTS),
        (SGD(0.3, momentum=0.8), sgd_steps(0.3, 0.8, False)),
        (SGD(0.3, momentum=0.8, nesterov=True), sgd_steps(0.3, 0.8, True)),
        (Adam(0.1), adam_steps(0.1, 0.9, 0.999, 1e-8)),
        (Adam(0.1, beta1=0.5, beta2=0.7, epsilon=0.2), adam_steps(0.1, 0.5, 0.7, 0.2)),
        (Optax(optax.chain(optax.scale(2.0), optax.sgd(0.15))), -0.3 * GRADIENTS),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adam with other numbers", "optax"],
)
def test_steps_are_those_of_the_formula(optimiser, expected):
    np.testing.assert_allclose(steps_of(optimiser), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SGD(0.0), r"SGD: learning_rate = 0\.0; expected a finite number above 0"),
        (lambda: SGD(float("nan")), "learning_rate = nan"),
        (lambda: SGD(float("inf")), "learning_rate = inf"),
        (lambda: SGD(0.1, momentum=1.0), r"momentum = 1\.0; expected a number of at least 0 and below 1"),
        (lambda: SGD(0.1, momentum=-0.1), r"momentum = -0\.1"),
        (lambda: SGD(0.1, nesterov=True), r"nesterov = True without momentum; give it a momentum"),
        (lambda: Adam(-1e-3), r"Adam: learning_rate = -0\.001"),
        (lambda: Adam(1e-3, beta1=1.0), r"beta1 = 1\.0"),
        (lambda: Adam(1e-3, beta2=-0.5), r"beta2 = -0\.5"),
        (lambda: Adam(1e-3, epsilon=0.0), r"epsilon = 0\.0"),
        (lambda: as_optimiser("adam"), "optimiser = 'adam'; expected an optimiser such as"),
        (lambda: as_optimiser(Adam), "the class Adam; expected an object of it"),
    ],
)
def test_bad_numbers_are_named(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


def test_a_transformation_that_needs_the_loss_is_refused():
    with pytest.raises(ConfigError, match="gradient, state and weights alone"):
        steps_of(Optax(optax.scale_by_polyak()))


def test_what_is_taken_for_an_optimiser():
    adam = Adam(1e-3)
    assert as_optimiser(adam) is adam
    assert isinstance(as_optimiser(optax.sgd(0.1)), Optax)
    assert all(issubclass(kind, AbstractOptimiser) for kind in optimiser_kinds.values())
