"""Derivatives of spectral functions that leave out modes of eigenvalue 0, against those with all modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnflow.geometry.directions import truncated_power_product


def _normal(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


_J, _JACOBIAN_DOT, _RIGHT, _RIGHT_DOT = (
    _normal(*shape, seed=seed) for seed, shape in enumerate([(9, 3), (9, 3), (9,), (9,)])
)

_CUTOFF = jnp.asarray(1e-12)


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("shift", [1e-2, 0.0])
def test_derivative_without_zero_modes_is_that_with_all(shift, power):
    vectors, values, _ = jnp.linalg.svd(_J, full_matrices=False)
    in_range = values[::-1] ** 2, vectors[:, ::-1]
    whole = tuple(jnp.linalg.eigh(_J @ _J.T))

    def function(modes):
        return lambda j, right, eps: truncated_power_product(j @ j.T, eps, jnp.asarray(power), right, *modes, _CUTOFF)

    at = _J, _RIGHT, jnp.asarray(shift)
    along = _JACOBIAN_DOT, _RIGHT_DOT, jnp.asarray(0.3 if shift else 0.0)
    for found, expected in zip(
        jax.jvp(function(in_range), at, along), jax.jvp(function(whole), at, along), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    # What is left out without a derivative moves no weights.
    outputs = (function(modes)(*at) for modes in (in_range, whole))
    np.testing.assert_allclose(*(_J.T @ one for one in outputs), rtol=1e-9, atol=1e-9)
