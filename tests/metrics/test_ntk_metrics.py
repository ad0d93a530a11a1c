"""The metrics of the NTK against a dense Jacobian in NumPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.flatten_util import ravel_pytree

from gnflow._core import DataError
from gnflow.geometry import System
from gnflow.metrics import (
    FullNTKSpectrum,
    KernelDistance,
    KernelTargetAlignment,
    NTKSpectrum,
    NTKVelocity,
    RelativeNTKChange,
)
from gnflow.models import MLP, MeanFieldNetwork
from gnflow.problems import Problem

_X = jr.normal(jr.key(0), (5, 3))
_Y = jr.normal(jr.key(1), (5, 2))


@pytest.fixture(scope="module", params=["mean field", "mlp"])
def case(request, moved):
    """(system, initial weights, other weights)."""
    key = jr.key(2)
    if request.param == "mlp":
        model = MLP(3, 4, 2, 2, key=key)
    else:
        model = MeanFieldNetwork(3, 6, 2, output_init_scale=1.0, key=key)
    system = System(Problem(_X, _Y), model)
    start = system.weights(model)
    return system, start, moved(start)


def _dense_gram(system, weights):
    flat, unravel = ravel_pytree(weights)
    jacobian = np.asarray(jax.jacfwd(lambda w: system.outputs(unravel(w)).reshape(-1))(flat))
    return jacobian @ jacobian.T


def test_spectrum(case, measure):
    system, _, weights = case
    expected = np.linalg.eigvalsh(_dense_gram(system, weights))
    share = expected / expected.sum()
    found = measure(NTKSpectrum(), system, weights)
    np.testing.assert_allclose(found["ntk_smallest_eigenvalue"], expected[0], rtol=1e-9)
    np.testing.assert_allclose(found["ntk_largest_eigenvalue"], expected[-1], rtol=1e-12)
    np.testing.assert_allclose(found["ntk_condition_number"], expected[-1] / expected[0], rtol=1e-9)
    np.testing.assert_allclose(found["ntk_effective_rank"], np.exp(-np.sum(share * np.log(share))), rtol=1e-12)
    spectrum = measure(FullNTKSpectrum(), system, weights)["ntk_spectrum"]
    np.testing.assert_allclose(spectrum, expected, rtol=0, atol=1e-13 * expected[-1])


def test_condition_number_of_a_singular_gram_is_infinite(measure):
    model = MeanFieldNetwork(3, 6, output_init_scale=1.0, key=jr.key(2))
    system = System(Problem(jnp.concatenate([_X, _X[:1]]), jnp.ones((6, 1))), model)
    found = measure(NTKSpectrum(), system, system.weights(model))
    assert float(found["ntk_condition_number"]) == np.inf
    assert abs(float(found["ntk_smallest_eigenvalue"])) < 1e-14 * float(found["ntk_largest_eigenvalue"])
    assert np.isfinite(found["ntk_effective_rank"])


def test_change_of_the_kernel(case, measure):
    system, start, weights = case
    first, now = _dense_gram(system, start), _dense_gram(system, weights)
    cosine = np.sum(first * now) / np.sqrt(np.sum(first**2) * np.sum(now**2))
    found = measure(KernelDistance(), system, weights, start)["kernel_distance"]
    np.testing.assert_allclose(found, 1 - cosine, rtol=1e-11)
    change = np.sqrt(np.sum((now - first) ** 2) / np.sum(first**2))
    found = measure(RelativeNTKChange(), system, weights, start)["relative_ntk_change"]
    np.testing.assert_allclose(found, change, rtol=1e-12)


def test_kernel_distance_keeps_its_digits_near_zero(case, measure, moved):
    """It is quadratic in a small displacement; 1 - cosine would be rounding here (1e-16 of 1)."""
    system, start, _ = case
    small, smaller = (
        float(measure(KernelDistance(), system, moved(start, size), start)["kernel_distance"]) for size in (1e-7, 1e-8)
    )
    assert 0 < smaller < 1e-14
    assert small / smaller == pytest.approx(100, rel=1e-4)


def test_velocity_is_the_limit_of_difference_quotients(case, measure, snapshot_at):
    system, _, weights = case
    step = 1e-5
    velocity = snapshot_at(system, weights).velocity
    ahead, behind = (
        _dense_gram(system, jax.tree.map(lambda w, v, h=h: w + h * v, weights, velocity)) for h in (step, -step)
    )
    expected = np.linalg.norm((ahead - behind) / (2 * step))
    # Truncation O(step^2) and rounding 1e-16/step are both below 1e-9 of the quotient.
    np.testing.assert_allclose(measure(NTKVelocity(), system, weights)["ntk_velocity"], expected, rtol=1e-8)


def test_kernel_target_alignment(case, measure):
    system, _, weights = case
    gram, targets = _dense_gram(system, weights), np.asarray(_Y).reshape(-1)
    expected = targets @ gram @ targets / (np.sqrt(np.sum(gram**2)) * (targets @ targets))
    found = measure(KernelTargetAlignment(), system, weights)["kernel_target_alignment"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert 0 < float(found) < 1


def test_alignment_is_one_for_a_kernel_of_rank_one_along_the_targets(measure):
    """One particle, one trained weight: A = s s^T, and the targets are that s."""
    model = MeanFieldNetwork(3, 1, key=jr.key(2))
    targets = 7.0 * jax.vmap(model.hidden_features)(_X)
    system = System(Problem(_X, targets), model, "output")
    found = measure(KernelTargetAlignment(), system, system.weights(model))["kernel_target_alignment"]
    np.testing.assert_allclose(found, 1, rtol=1e-14)


def test_alignment_with_zero_targets_is_refused():
    model = MeanFieldNetwork(3, 2, key=jr.key(2))
    with pytest.raises(DataError, match="y_train is zero"):
        KernelTargetAlignment().variables(System(Problem(_X, jnp.zeros((5, 1))), model))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_permuting_particles_changes_no_kernel_metric(seed, measure):
    model = MeanFieldNetwork(3, 6, output_init_scale=1.0, key=jr.key(seed))
    order = np.random.default_rng(seed).permutation(6)
    permuted = jax.tree.map(lambda leaf: leaf[order], model)
    system = System(Problem(_X, _Y[:, :1]), model)
    start = system.weights(MeanFieldNetwork(3, 6, output_init_scale=1.0, key=jr.key(seed + 1)))
    for metric in (NTKSpectrum(), KernelDistance(), RelativeNTKChange(), KernelTargetAlignment()):
        found = measure(metric, system, system.weights(model), start)
        for name, value in measure(metric, system, system.weights(permuted), start).items():
            # A smallest eigenvalue carries the absolute error of the largest.
            tolerance = 1e-10 if "smallest" not in name and "condition" not in name else 1e-6
            np.testing.assert_allclose(value, found[name], rtol=tolerance, err_msg=name)
