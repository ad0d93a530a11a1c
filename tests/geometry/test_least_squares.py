import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnflow.geometry import least_squares_with_bias

solve = jax.jit(least_squares_with_bias)


def matrix(samples, features, values, seed=0):
    """[features, 1] (samples, features + 1) whose last column is 1 and whose other columns have these singular values."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.normal(size=(samples, len(values))))[0]
    right = np.linalg.qr(rng.normal(size=(features, len(values))))[0]
    return (left * values) @ right.T


def by_pseudo_inverse(features, targets, rtol):
    whole = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    solution = np.linalg.pinv(whole, rcond=rtol) @ targets
    return (
        solution,
        whole @ solution,
        int(np.sum(np.linalg.svd(whole, compute_uv=False) > rtol * np.linalg.norm(whole, 2))),
    )


CASES = {
    "wide": (6, 9, [3.0, 2.0, 1.0, 0.5, 0.3, 0.1], 1e-6),
    "tall": (9, 4, [3.0, 2.0, 1.0, 0.5], 1e-6),
    "square": (5, 4, [3.0, 2.0, 1.0, 0.5], 1e-6),
    "truncated": (6, 9, [3.0, 2.0, 1.0, 0.5, 0.01, 0.001], 1e-1),
    "rank deficient, wide": (8, 9, [3.0, 2.0, 1.0], 1e-6),
    "rank deficient, tall": (9, 6, [3.0, 2.0], 1e-6),
    "no features": (5, 3, [0.0], 1e-6),
}


@pytest.mark.parametrize("case", CASES)
def test_is_the_pseudo_inverse(case):
    samples, count, values, rtol = CASES[case]
    features = matrix(samples, count, values)
    targets = np.random.default_rng(1).normal(size=(samples, 3))
    expected, fitted, rank = by_pseudo_inverse(features, targets, rtol)
    got = solve(features, targets, rtol)
    np.testing.assert_allclose(got.weight, expected[:-1], rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(got.bias, expected[-1], rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(got.fitted, fitted, rtol=1e-10, atol=1e-11)
    assert int(got.rank) == rank
    missed = np.linalg.norm(fitted - targets) / np.linalg.norm(targets)
    np.testing.assert_allclose(got.relative_residual, missed, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize(("rtol", "atol", "rank"), [(1e-6, 0.7, 3), (0.2, 0.2, 3), (0.4, 0.2, 2), (0.0, 5.0, 0)])
def test_the_larger_of_both_bounds_counts(rtol, atol, rank):
    """Of features without the column of ones' part: singular values 3, 2, 1, 0.5 of [features, 1] with features of mean 0."""
    left = np.linalg.qr(np.column_stack([np.ones(9), np.random.default_rng(0).normal(size=(9, 3))]))[0]
    right = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 3)))[0]
    features = (left[:, 1:] * [2.0, 1.0, 0.5]) @ right.T  # beside a singular value of 3 of the ones
    assert int(solve(features, np.ones((9, 1)), rtol, atol).rank) == rank


def test_refinement_takes_back_the_squared_condition_number():
    features = matrix(6, 9, [1.0, 0.3, 0.1, 1e-2, 1e-3, 1e-5])
    targets = np.random.default_rng(1).normal(size=(6, 3))
    got = solve(features, targets, 0.0)
    assert int(got.rank) == 6
    # The Gram matrix alone leaves (1e5)^2 machine epsilons, 1e-6.
    assert float(got.relative_residual) < 1e-9


def test_what_float64_cannot_tell_from_zero_is_never_kept():
    features = matrix(6, 9, [1.0, 0.3, 0.1, 1e-2, 1e-9, 1e-9])
    # The column of ones makes up for one of the two.
    assert int(solve(features, np.ones((6, 1)), 0.0).rank) == 5


def test_targets_that_are_zero_have_no_residual():
    got = solve(matrix(4, 5, [1.0, 0.5]), np.zeros((4, 2)), 0.0)
    assert float(got.relative_residual) == 0.0
    assert not np.any(got.weight)


@functools.partial(jax.jit, static_argnums=3)
def with_ridge(features, targets, rtol, ridge):
    return least_squares_with_bias(features, targets, rtol, 0.0, ridge)


@pytest.mark.parametrize("case", ["wide", "tall", "truncated", "rank deficient, wide", "rank deficient, tall"])
def test_a_ridge_is_added_to_the_modes_that_are_kept(case):
    samples, count, values, rtol = CASES[case]
    features = matrix(samples, count, values)
    targets = np.random.default_rng(1).normal(size=(samples, 3))
    whole = np.concatenate([features, np.ones((samples, 1))], axis=1)
    left, singular, right = np.linalg.svd(whole)
    kept = int(np.sum(singular > rtol * singular[0]))
    eps = 0.1 * np.sum(singular[:kept] ** 2)
    factors = singular[:kept] / (singular[:kept] ** 2 + eps)
    expected = right[:kept].T @ (factors[:, None] * (left[:, :kept].T @ targets))
    got = with_ridge(features, targets, rtol, lambda spectrum: 0.1 * spectrum.trace)
    np.testing.assert_allclose(got.ridge, eps, rtol=1e-9)
    np.testing.assert_allclose(np.vstack([got.weight, got.bias]), expected, rtol=1e-9, atol=1e-10)
    assert int(got.rank) == kept


def test_the_spectrum_of_a_ridge_has_as_many_modes_as_samples():
    targets = np.random.default_rng(1).normal(size=(9, 3))
    features = matrix(9, 4, [3.0, 2.0, 1.0, 0.5])
    whole = np.concatenate([features, np.ones((9, 1))], axis=1)
    left, singular, _ = np.linalg.svd(whole)
    seen = {}

    def look(spectrum):
        seen.update(all=spectrum.all, energies=spectrum.target_energies)
        return jnp.zeros(())

    least_squares_with_bias(jnp.asarray(features), jnp.asarray(targets), 0.0, 0.0, look)
    np.testing.assert_allclose(seen["all"], [0, 0, 0, 0, *singular[::-1] ** 2], rtol=1e-10)
    energies = np.sum((left[:, :5].T @ targets) ** 2, axis=1)[::-1]
    np.testing.assert_allclose(seen["energies"], [0, 0, 0, 0, *energies], rtol=1e-8)


def test_refinement_with_a_small_ridge():
    features = matrix(6, 9, [1.0, 0.3, 0.1, 1e-2, 1e-3, 1e-5])
    targets = np.random.default_rng(1).normal(size=(6, 3))
    whole = np.concatenate([features, np.ones((6, 1))], axis=1)
    left, singular, right = np.linalg.svd(whole, full_matrices=False)
    expected = right.T @ ((singular / (singular**2 + 1e-10))[:, None] * (left.T @ targets))
    got = with_ridge(features, targets, 0.0, lambda spectrum: 1e-10)
    # The Gram matrix alone leaves (1e5)^2 machine epsilons, 1e-6.
    np.testing.assert_allclose(np.vstack([got.weight, got.bias]), expected, rtol=0, atol=1e-8 * np.abs(expected).max())
