import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gnflow.geometry import effective_rank, numerical_rank, rank_cutoff


@settings(derandomize=True, deadline=None, max_examples=25)
@given(size=st.just(6), rank=st.integers(0, 6), scale=st.sampled_from([1e-12, 1.0, 1e9]), seed=st.integers(0, 1000))
def test_the_rank_rule_is_numpys(size, rank, scale, seed):
    factor = np.random.default_rng(seed).normal(size=(size, rank))
    matrix = scale * factor @ factor.T
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert int(numerical_rank(jnp.asarray(eigenvalues))) == np.linalg.matrix_rank(matrix, hermitian=True) == rank
    expected = size * np.finfo(float).eps * np.abs(eigenvalues).max()
    np.testing.assert_allclose(rank_cutoff(jnp.asarray(eigenvalues)), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("eigenvalues", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4.0),
        ([0.0, 0.0, 5.0, 5.0], 2.0),
        ([0.0, 0.0, 0.0, 3.0], 1.0),
        ([-1e-17, 0.0, 2.0, 2.0], 2.0),  # rounding below zero is no negative share
        ([1.0, 3.0], np.exp(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))),
    ],
)
def test_effective_rank(eigenvalues, expected):
    for scale in (1.0, 1e-9):
        np.testing.assert_allclose(effective_rank(scale * jnp.asarray(eigenvalues)), expected, rtol=1e-12)
