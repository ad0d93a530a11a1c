"""The estimated kernel distance: against the exact one, in its spread, near zero, and without a Gram matrix."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gnflow._core import ConfigError, ModelError
from gnflow.geometry import GenericTangent, System
from gnflow.metrics import KernelDistance, KernelDistanceEstimate
from gnflow.metrics._kernel_distance_estimate import distance_of_products
from gnflow.models import MLP, MeanFieldNetwork, ReversibleMLP
from gnflow.problems import Problem

_ESTIMATE, _ERROR = "kernel_distance_estimate", "kernel_distance_standard_error"
_KERNEL_SIZE = 12
# No number of probes at once divides it.
_ELEVEN = KernelDistanceEstimate(num_probes=11, seed=5)


@pytest.fixture(scope="module")
def case(moved):
    """(system, initial weights, other weights) with NC = 20."""
    model = MLP(3, 4, 2, 2, key=jr.key(2))
    system = System(Problem(jr.normal(jr.key(0), (10, 3)), jr.normal(jr.key(1), (10, 2))), model)
    start = system.weights(model)
    return system, start, moved(start, 1.0)


@pytest.fixture(scope="module")
def products():
    """Products (groups, p, NC, 1) of two random kernels with normal probes, in NumPy, and the exact distance."""

    def make(groups, count):
        rng = np.random.default_rng(3)
        first, change = (rng.normal(size=(_KERNEL_SIZE, 4)) for _ in range(2))
        kernels = [root @ root.T for root in (first, first + change)]
        probes = rng.normal(size=(groups, count, _KERNEL_SIZE))
        cosine = np.sum(kernels[0] * kernels[1]) / np.prod([np.linalg.norm(kernel) for kernel in kernels])
        return *(jnp.asarray((probes @ kernel)[..., None]) for kernel in kernels), 1 - cosine

    return make


def test_it_is_the_exact_distance_within_its_error(case, measure):
    system, start, weights = case
    exact = float(measure(KernelDistance(), system, weights, start)["kernel_distance"])
    scores = []
    for seed in range(2):
        found = measure(KernelDistanceEstimate(num_probes=96, seed=seed), system, weights, start)
        scores.append((float(found[_ESTIMATE]) - exact) / float(found[_ERROR]))
        assert 0 < float(found[_ERROR]) < 0.3 * exact
    assert np.max(np.abs(scores)) < 3
    assert len(set(scores)) == 2  # the seed decides


def test_it_is_the_cosine_of_products_with_the_dense_kernels(case, measure):
    """Whatever the probes are: those of the seed, with Gram matrices from the tangent."""
    system, start, weights = case
    probes = np.asarray(jr.normal(jr.key(5), (11, 10, 2))).reshape(11, 20)
    now, first = (probes @ np.asarray(system.tangent(w).gram()) for w in (weights, start))

    def distance(chosen):
        return 1 - np.sum(now[chosen] * first[chosen]) / (np.linalg.norm(now[chosen]) * np.linalg.norm(first[chosen]))

    without = [distance(np.arange(11) != left_out) for left_out in range(11)]
    found = measure(_ELEVEN, system, weights, start)
    np.testing.assert_allclose(found[_ESTIMATE], distance(np.arange(11)), rtol=1e-11)
    np.testing.assert_allclose(found[_ERROR], np.sqrt(10) * np.std(without), rtol=1e-10)


@pytest.mark.parametrize(
    "model",
    [
        ReversibleMLP(4, 5, 2, 2, init_scale=0.5, key=jr.key(2)),
        MeanFieldNetwork(4, 3, 2, output_init_scale=1.0, key=jr.key(2)),
    ],
    ids=["reversible", "mean field"],
)
def test_the_kernel_of_the_features_is_that_of_their_jacobian(model, moved, measure):
    """With the dense kernels J J^T of the last hidden features by automatic differentiation, whatever the probes are."""
    system = System(Problem(jr.normal(jr.key(0), (3, 4)), jr.normal(jr.key(1), (3, 2))), model)
    start = system.weights(model)
    weights = moved(start, 1.0)

    def kernel(at):
        flat, unravel = ravel_pytree(at)
        jacobian = jax.jacobian(lambda w: jax.vmap(system.model(unravel(w)).hidden_features)(system.problem.x_train))
        dense = np.asarray(jacobian(flat)).reshape(-1, flat.size)
        return dense @ dense.T

    first, now = kernel(start), kernel(weights)
    probes = np.asarray(jr.normal(jr.key(5), (11, 3, len(now) // 3))).reshape(11, -1)
    products = [probes @ matrix for matrix in (now, first)]
    expected = 1 - np.sum(products[0] * products[1]) / np.prod([np.linalg.norm(stack) for stack in products])
    found = measure(KernelDistanceEstimate(num_probes=11, seed=5, of="features"), system, weights, start)
    np.testing.assert_allclose(found[f"feature_{_ESTIMATE}"], expected, rtol=1e-10)
    assert float(found[f"feature_{_ERROR}"]) > 0
    of_outputs = measure(_ELEVEN, system, weights, start)[_ESTIMATE]
    assert abs(float(of_outputs) - expected) > 1e-3  # another kernel


def test_the_kernel_of_the_features_needs_features(case):
    with pytest.raises(ModelError, match="KernelDistanceEstimate of the features needs the last hidden layer"):
        KernelDistanceEstimate(of="features").variables(System(case[0].problem, eqx.nn.MLP(3, 2, 4, 1, key=jr.key(0))))
    with pytest.raises(Exception, match="feature"):  # beartype's error in these tests
        KernelDistanceEstimate(of="feature")


def test_its_error_falls_as_the_square_root_of_the_number_of_probes(products):
    """And the standard error is the actual spread over groups of probes: 400 groups know it to 4%."""
    spreads = []
    for count in (16, 144):
        now, first, exact = products(400, count)
        values, errors = jax.jit(jax.vmap(distance_of_products))(now, first)
        spread = np.sqrt(np.mean((np.asarray(values) - exact) ** 2))
        spreads.append(spread)
        # The bias is of the order 1/p, the error of p^(-1/2).
        assert abs(np.mean(values) - exact) < 0.5 * spread
        np.testing.assert_allclose(np.sqrt(np.mean(np.asarray(errors) ** 2)), spread, rtol=0.25)
    np.testing.assert_allclose(spreads[0] / spreads[1], 3, rtol=0.2)


def test_it_keeps_its_digits_near_zero(case, measure, moved):
    """Estimate and error are quadratic in a small displacement; 1 - cosine would be rounding here (1e-16 of 1)."""
    system, start, _ = case
    small, smaller = (measure(_ELEVEN, system, moved(start, size), start) for size in (1e-7, 1e-8))
    for name in (_ESTIMATE, _ERROR):
        assert 0 < float(smaller[name]) < 1e-13
        assert float(small[name]) / float(smaller[name]) == pytest.approx(100, rel=1e-4), name


def test_multiples_of_a_kernel_are_not_apart(products):
    now, _, _ = products(1, 8)
    for factor in (1.0, 1e-3, 1e100):
        distance, error = jax.jit(distance_of_products)(factor * now[0], now[0])
        assert abs(float(distance)) < 1e-30
        assert abs(float(error)) < 1e-30
    assert np.isnan(jax.jit(distance_of_products)(0.0 * now[0], now[0])[0])


def test_it_forms_no_gram_matrix(case, monkeypatch, snapshot_at):
    system, start, _ = case

    def refuse(*_):
        raise AssertionError("a Gram matrix was formed")

    for tangent in (type(system.tangent(start)), GenericTangent):
        monkeypatch.setattr(tangent, "gram", refuse)
        monkeypatch.setattr(tangent, "cross_gram", refuse)

    def traced(weights):
        snapshot = snapshot_at(system, weights)
        memory = _ELEVEN.prepare(snapshot)
        return memory, _ELEVEN.evaluate(snapshot, memory)

    memory, values = jax.eval_shape(traced, start)
    assert memory.shape == (11, 10, 2)
    assert values[_ESTIMATE].shape == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_probes": 1}, r"num_probes = 1; expected an integer of at least 2"),
        ({"num_probes": 0}, r"num_probes = 0; expected an integer"),
        ({"seed": -1}, r"seed = -1; expected an integer of at least 0"),
        ({"seed": True}, r"seed = True; expected an integer of at least 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        KernelDistanceEstimate(**arguments)
