"""Test outputs in batches: the same numbers, in memory that does not grow with the activations of all inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnflow._core import _batches, in_batches
from gnflow.geometry import Snapshot, System
from gnflow.metrics import HiddenLearning
from gnflow.models import MLP, MeanFieldNetwork
from gnflow.problems import Problem

WIDTH = 64


def problem_of(num_test):
    rng = np.random.default_rng(num_test)
    x, y = rng.normal(size=(3 + num_test, 2)), rng.normal(size=(3 + num_test, 1))
    return Problem(x[:3], y[:3], x[3:], y[3:])


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_results_are_those_of_vmap(count, monkeypatch):
    monkeypatch.setattr(_batches, "_BATCH", 8)
    inputs = jnp.arange(3.0 * count).reshape(count, 3)

    def function(x):
        return jnp.outer(x, x), jnp.sum(x)

    for got, expected in zip(in_batches(function, inputs), jax.vmap(function)(inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-15)


def test_test_loss_and_refitted_test_loss(monkeypatch):
    """Those of all test inputs at once."""
    system = System(problem_of(50), model := MeanFieldNetwork(2, WIDTH, key=jax.random.key(0)))
    weights = system.weights(model)

    def both():
        snapshot = Snapshot(jnp.zeros(()), weights, system, lambda: (weights, None))
        refitted = HiddenLearning().evaluate(snapshot, None)["refit_test_loss"]
        return [float(value) for value in (snapshot.test_loss, system.test_loss(weights), refitted)]

    whole = both()
    monkeypatch.setattr(_batches, "_BATCH", 16)
    np.testing.assert_allclose(both(), whole, rtol=1e-12)
    problem = system.problem
    assert problem.x_test is not None
    assert problem.y_test is not None
    expected = float(jnp.mean((jax.vmap(model)(problem.x_test).reshape(-1, 1) - problem.y_test) ** 2) / 2)
    np.testing.assert_allclose(whole[:2], expected, rtol=1e-12)


def test_memory_does_not_grow_with_test_inputs_times_width():
    model = MLP(2, WIDTH, 2, 1, key=jax.random.key(0))

    def temporary_bytes(num_test):
        system = System(problem_of(num_test), model)
        arrays, static = eqx.partition(system, eqx.is_array)
        loss = jax.jit(lambda arrays, weights: eqx.combine(arrays, static).test_loss(weights))
        analysis = loss.lower(arrays, system.weights(model)).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    few, many = 2000, 20000
    # A few arrays like the outputs, far from one like the activations.
    assert temporary_bytes(many) - temporary_bytes(few) < 8 * (many - few) * WIDTH / 4
