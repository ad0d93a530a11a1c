"""Subspaces of the particles, their spread and how far they turn between saves, against NumPy and SciPy."""

import itertools

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg

import gnflow as gn
from gnflow.geometry import System
from gnflow.metrics import (
    Particles,
    ParticleSpread,
    SubspaceDistance,
    direction_distance,
    direction_distance_to_previous,
)
from gnflow.metrics._subspace_distance import principal_angles
from gnflow.models import MeanFieldNetwork

PROBLEM = gn.problems.teacher_student(n_train=6, n_test=0, input_dim=5, teacher_width=2, key=jr.key(0))
MODEL = MeanFieldNetwork(5, 9, output_init_scale=1.0, key=jr.key(1))


def leading(weight, rank):
    values, vectors = np.linalg.eigh(np.asarray(weight).T @ np.asarray(weight))
    return vectors[:, np.argsort(values)[::-1][:rank]]


@pytest.mark.parametrize(("metric", "rank"), [(SubspaceDistance(), 2), (SubspaceDistance("initial", rank=3), 3)])
def test_grassmann_distance(metric, rank, measure, moved):
    system = System(PROBLEM, MODEL)
    start = system.weights(MODEL)
    weights = moved(start, size=2.0)
    reference = PROBLEM.teacher if metric.reference == "teacher" else MODEL
    angles = scipy.linalg.subspace_angles(leading(weights.hidden_weight, rank), leading(reference.hidden_weight, rank))
    found = measure(metric, system, weights, start)[f"subspace_distance_to_{metric.reference}"]
    np.testing.assert_allclose(found, np.linalg.norm(angles), rtol=1e-10)
    assert 0.1 < found < np.pi / 2 * np.sqrt(rank)
    if metric.reference == "initial":
        assert float(measure(metric, system, start, start)["subspace_distance_to_initial"]) < 1e-14


def test_small_angles_keep_their_digits():
    tilt = 1e-9
    left, right = np.eye(4)[:, :2], np.eye(4)[:, :2].copy()
    right[:, 1] = [0.0, np.cos(tilt), np.sin(tilt), 0.0]
    np.testing.assert_allclose(principal_angles(jnp.asarray(left), jnp.asarray(right)), [0.0, tilt], rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 2.5])
def test_bad_ranks_are_refused(rank):
    with pytest.raises((gn.ConfigError, TypeError), match="rank"):
        SubspaceDistance(rank=rank)


def test_ranks_that_say_nothing_are_refused(measure):
    with pytest.raises(gn.ConfigError, match="the whole space"):
        SubspaceDistance("initial")
    with pytest.raises(gn.ConfigError, match="reference"):
        SubspaceDistance("previous", rank=2)
    with pytest.raises(gn.DataError, match="5 directions of 5 dimensions, which are the whole space"):
        SubspaceDistance(rank=5).variables(System(PROBLEM, MODEL))
    system = System(PROBLEM, MODEL)
    with pytest.raises(gn.DataError, match="a network has 2 units"):
        measure(SubspaceDistance(rank=3), system, system.weights(MODEL))
    without = gn.Problem(PROBLEM.x_train, PROBLEM.y_train)
    with pytest.raises(gn.DataError, match="needs the teacher"):
        SubspaceDistance().variables(System(without, MODEL))


def test_spread(measure):
    system = System(PROBLEM, MODEL)
    u = np.asarray(MODEL.hidden_weight)
    shares = np.sum(u**2, axis=1) / np.sum(u**2)
    mean = np.average(u, axis=0, weights=shares)
    expected = np.mean([np.sqrt(np.average((u[:, j] - mean[j]) ** 2, weights=shares)) for j in range(5)])
    found = measure(ParticleSpread(), system, system.weights(MODEL))["particle_spread"]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_distance_to_the_previous_save():
    run = gn.iterate(PROBLEM, MODEL, gn.flows.GradientFlow(), step_size=0.5, num_steps=3, metrics=(Particles(),))
    particles = jnp.asarray(run.data["particle_hidden_weight"].to_numpy())
    found = direction_distance_to_previous(particles)
    steps = itertools.pairwise(map(jnp.asarray, particles))
    expected = [0.0, *(direction_distance(now, before) for before, now in steps)]
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert np.all(np.asarray(found)[1:] > 0)
    np.testing.assert_array_equal(direction_distance_to_previous(particles[:1]), [0.0])
