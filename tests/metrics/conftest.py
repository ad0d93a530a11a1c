"""What the tests of the metrics share: snapshots at given weights, without any run."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from gnflow.geometry import Snapshot, SolveDiagnostics


@pytest.fixture(scope="session")
def snapshot_at():
    """snapshot_at(system, weights): w' = -J^T g, a solve of rank 3, and a path length of `integral`."""

    def make(system, weights, integral=0.0):
        def velocity():
            gradient = system.loss.gradient(system.outputs(weights), system.problem.y_train)
            solved = SolveDiagnostics(jnp.asarray(0.5), jnp.asarray(3), jnp.asarray(1e-9), jnp.asarray(True))
            return jax.tree.map(lambda leaf: -leaf, system.tangent(weights).vjp(gradient)), solved

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
    """measure(metric, system, weights, start): the metric's values by name, compiled once per kind of arguments."""

    @eqx.filter_jit
    def values(metric, system, weights, start):
        memory = metric.prepare(snapshot_at(system, start))
        return metric.evaluate(snapshot_at(system, weights), memory)

    return lambda metric, system, weights, start=None: values(
        metric, system, weights, weights if start is None else start
    )
