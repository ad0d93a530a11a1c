"""Wasserstein-2 distances of particle clouds: closed forms, metric axioms, agreement of the exact and the sliced one."""

import itertools

import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from gnflow import ConfigError, DataError
from gnflow.theory._wasserstein import sliced_wasserstein2, wasserstein2

SHIFT = np.array([0.3, -1.2, 0.5])


def cloud(seed, size, dim=3):
    return np.random.default_rng(seed).normal(size=(size, dim))


def sliced(first, second, num_directions=200, seed=0):
    return sliced_wasserstein2(first, second, num_directions, key=jr.key(seed))


def test_exact_distance_is_the_minimum_over_all_permutations():
    x, y = cloud(0, 6), cloud(1, 6)
    squares = [np.mean(np.sum((x - y[list(p)]) ** 2, axis=1)) for p in itertools.permutations(range(6))]
    np.testing.assert_allclose(wasserstein2(x, y), np.sqrt(min(squares)), rtol=1e-13)


def test_translation_moves_every_particle_by_the_shift():
    x = cloud(2, 40)
    np.testing.assert_allclose(wasserstein2(x, x + SHIFT), np.linalg.norm(SHIFT), rtol=1e-13)
    # Projections on theta move by theta.shift, whose mean square is |shift|^2/d.
    estimate = sliced(x, x + SHIFT, 4000)
    assert abs(estimate.value - np.linalg.norm(SHIFT) / np.sqrt(3)) < 4 * estimate.standard_error
    assert 0 < estimate.standard_error < 0.02 * estimate.value


def test_permuted_particles_are_the_same_cloud():
    x = cloud(3, 30)
    y = x[np.random.default_rng(0).permutation(30)]
    assert wasserstein2(x, y) == 0
    assert sliced(x, y).value < 1e-14


@pytest.mark.parametrize("copies", [1, 3])
def test_a_smaller_cloud_counts_each_particle_several_times(copies):
    x, y = cloud(4, 8), cloud(5, 8 * copies)
    expected = wasserstein2(np.tile(x, (copies, 1)), y)
    np.testing.assert_allclose([wasserstein2(x, y), wasserstein2(y, x)], expected, rtol=1e-13)
    expected = sliced(np.tile(x, (copies, 1)), y).value
    np.testing.assert_allclose([sliced(x, y).value, sliced(y, x).value], expected, rtol=1e-13)


def test_sliced_distance_of_sizes_without_a_common_factor():
    x, y = cloud(6, 5, 1), cloud(7, 7, 1)
    levels = (np.arange(35 * 40) + 0.5) / (35 * 40)
    quantiles = np.sort(x[:, 0])[(levels * 5).astype(int)] - np.sort(y[:, 0])[(levels * 7).astype(int)]
    estimate = sliced(x, y)
    np.testing.assert_allclose(estimate.value, np.sqrt(np.mean(quantiles**2)), rtol=1e-12)
    assert estimate.standard_error == 0


def test_gaussians_in_one_dimension():
    # W_2^2 of N(a, s^2) and N(b, t^2) is (a - b)^2 + (s - t)^2; clouds at their quantiles.
    quantiles = scipy.stats.norm.ppf((np.arange(20000) + 0.5) / 20000)
    exact = np.sqrt(0.5**2 + 1.0**2)
    assert abs(wasserstein2(quantiles[::10], 0.5 + 2 * quantiles[::10]) - exact) < 5e-3
    assert abs(sliced(quantiles, 0.5 + 2 * quantiles).value - exact) < 1e-3


def test_metric_axioms_and_the_sliced_distance_below_the_exact_one():
    x, y, z = cloud(8, 25), cloud(9, 25) + SHIFT, 2 * cloud(10, 25)
    for distance in (wasserstein2, lambda a, b: sliced(a, b).value):
        np.testing.assert_allclose(distance(x, y), distance(y, x), rtol=1e-12)
        assert 0 < distance(x, z) < distance(x, y) + distance(y, z)
    assert sliced(x, y).value <= wasserstein2(x, y)  # in every direction, so without statistics


def test_standard_error_is_the_spread_of_independent_estimates():
    x, y = cloud(11, 20), cloud(12, 20) + SHIFT
    estimates = [sliced(x, y, 50, seed) for seed in range(100)]
    spread = np.std([e.value for e in estimates])
    assert 0.75 < np.mean([e.standard_error for e in estimates]) / spread < 1.33


@pytest.mark.parametrize(
    ("first", "second", "error", "message"),
    [
        (cloud(0, 4), cloud(0, 6), ConfigError, "multiple"),
        (cloud(0, 4), cloud(0, 4, 2), DataError, "expected"),
        (cloud(0, 4), np.full((4, 3), np.nan), DataError, "finite"),
        (np.zeros((0, 3)), cloud(0, 4), DataError, "expected"),
        (cloud(0, 2), np.zeros((5000, 3)), ConfigError, "at most 4096"),
    ],
)
def test_bad_clouds(first, second, error, message):
    with pytest.raises(error, match=message):
        wasserstein2(first, second)


@pytest.mark.parametrize("num_directions", [1, 0])
def test_bad_number_of_directions(num_directions):
    with pytest.raises(ConfigError, match="num_directions"):
        sliced(cloud(0, 4), cloud(1, 4), num_directions)
