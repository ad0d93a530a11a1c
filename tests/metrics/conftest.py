"""What the tests of the metrics share: snapshots at given weights, without any run."""

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from gnflow.geometry import Snapshot


@pytest.fixture(scope="session")
def snapshot_at():
    """snapshot_at(system, weights) with w' = -J^T g and every integral equal to `integral`."""

    def make(system, weights, integral=0.0):
        def velocity():
            gradient = system.loss.gradient(system.outputs(weights), system.problem.y_train)
            return jax.tree.map(lambda leaf: -leaf, system.tangent(weights).vjp(gradient)), None

        return Snapshot(jnp.zeros(()), weights, system, velocity, {"path_length": jnp.asarray(integral)})

    return make


@pytest.fixture(scope="session")
def moved():
    """moved(weights): other weights, at a distance of about `size` in every entry."""

    def move(weights, size=0.3, seed=1):
        leaves, tree = jax.tree.flatten(weights)
        keys = jr.split(jr.key(seed), len(leaves))
        return jax.tree.unflatten(
            tree, [leaf + size * jr.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
        )

    return move


@pytest.fixture(scope="session")
def measure(snapshot_at):
    """measure(metric, system, weights, start): the metric's values, by name, as floats or NumPy arrays."""

    def values(metric, system, weights, start=None):
        memory = metric.prepare(snapshot_at(system, weights if start is None else start))
        return metric.evaluate(snapshot_at(system, weights), memory)

    return values
