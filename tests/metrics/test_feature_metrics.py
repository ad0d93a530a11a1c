"""CKA and hidden learning against obvious NumPy, and their invariances."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import ortho_group

from gnflow.geometry import System
from gnflow.metrics import FeatureAlignment, HiddenLearning, LayerAlignment, centred_kernel_alignment
from gnflow.models import MLP, MeanFieldNetwork, RandomFeatures
from gnflow.problems import Problem

_SHAPES = [((7, 3), (7, 2)), ((4, 6), (4, 6)), ((5, 3), (5, 9)), ((5, 5), (5, 5))]


def _dense_cka(x, y):
    """With centring matrices and full kernels, as in Kornblith et al. 2019."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    a, b = centring @ x @ x.T @ centring, centring @ y @ y.T @ centring
    return np.trace(a @ b) / np.sqrt(np.trace(a @ a) * np.trace(b @ b))


@pytest.mark.parametrize("shapes", _SHAPES)
def test_cka_against_centring_matrices(shapes):
    """More samples than features and fewer: both ways to compute it."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=shape) + 3.0 for shape in shapes)
    found = centred_kernel_alignment(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(found, _dense_cka(x, y), rtol=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), shapes=st.sampled_from(_SHAPES), scale=st.sampled_from([1e-100, 1e-3, 1.0, -7.0, 1e100])
)
def test_cka_invariances(seed, shapes, scale):
    """Rotation, scale, shift, the order of samples and of the two arguments; and its range."""
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=shape) for shape in shapes)
    value = float(centred_kernel_alignment(jnp.asarray(x), jnp.asarray(y)))
    assert -1e-14 < value < 1 + 1e-14
    rotated = scale * (x @ ortho_group.rvs(x.shape[1], random_state=rng) + rng.normal(size=x.shape[1]))
    order = rng.permutation(len(x))
    for a, b in ((rotated, y), (y, x), (x[order], y[order])):
        assert float(centred_kernel_alignment(jnp.asarray(a), jnp.asarray(b))) == pytest.approx(value, rel=1e-9)
    assert float(centred_kernel_alignment(jnp.asarray(x), jnp.asarray(rotated))) == pytest.approx(1, rel=1e-11)


def test_cka_of_constant_features_is_nan():
    assert np.isnan(centred_kernel_alignment(jnp.ones((4, 2)), jnp.eye(4)))


def test_cka_takes_no_samples_times_features_squared():
    """k x k where samples are many, n x n where features are: 20000 on either side would need 3 GB otherwise."""
    for shape in ((20000, 3), (3, 20000)):
        spec = jax.ShapeDtypeStruct(shape, jnp.float64)
        compiled = jax.jit(centred_kernel_alignment).lower(spec, spec).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 2**22


def _problem(outputs, n_train=5, test=True):
    x, x_test = jr.normal(jr.key(0), (n_train, 3)), jr.normal(jr.key(1), (6, 3))
    y, y_test = jr.normal(jr.key(2), (n_train, outputs)), jr.normal(jr.key(3), (6, outputs))
    return Problem(x, y, x_test, y_test) if test else Problem(x, y)


@pytest.mark.parametrize(
    "model",
    [MeanFieldNetwork(3, 4, 2, key=jr.key(4)), MLP(3, 4, 2, 2, key=jr.key(4))],
    ids=["mean field", "mlp"],
)
def test_feature_alignment_is_cka_of_hidden_features(model, measure, moved):
    system = System(_problem(2), model)
    start = system.weights(model)
    weights = moved(start, 1.0)
    found = measure(FeatureAlignment(), system, weights, start)
    for name, x in (("train", system.problem.x_train), ("test", system.problem.x_test)):
        before, after = (np.stack([system.model(w).hidden_features(row) for row in x]) for w in (start, weights))
        np.testing.assert_allclose(found[f"feature_cka_{name}"], _dense_cka(before, after), rtol=1e-12)
        assert float(found[f"feature_cka_{name}"]) < 0.999
    assert set(measure(FeatureAlignment(), System(_problem(2, test=False), model), weights, start)) == {
        "feature_cka_train"
    }


def test_layer_alignment_is_cka_of_each_hidden_layer(measure, moved):
    """The layers of an MLP built again in NumPy, first to last; the last is what FeatureAlignment sees."""
    model = MLP(3, 4, 3, 2, key=jr.key(4))
    system = System(_problem(2), model)
    start = system.weights(model)
    weights = moved(start, 1.0)
    found = measure(LayerAlignment(), system, weights, start)
    for name, inputs in (("train", system.problem.x_train), ("test", system.problem.x_test)):
        before = after = np.asarray(inputs)
        for layer in range(3):
            before, after = (
                _silu(x @ np.asarray(part.weight).T / np.sqrt(x.shape[1]) + np.asarray(part.bias))
                for x, part in ((before, start.layers[layer]), (after, weights.layers[layer]))
            )
            value = found[f"layer_cka_{name}"][layer]
            np.testing.assert_allclose(value, _dense_cka(before, after), rtol=1e-12)
            assert float(value) < 0.999
        last = measure(FeatureAlignment(), system, weights, start)[f"feature_cka_{name}"]
        np.testing.assert_allclose(found[f"layer_cka_{name}"][-1], last, rtol=1e-14)
        assert found[f"layer_cka_{name}"].shape == (3,)
    assert set(measure(LayerAlignment(), System(_problem(2, test=False), model), weights, start)) == {"layer_cka_train"}


def _silu(z):
    return z / (1 + np.exp(-z))


@pytest.mark.parametrize(("n_train", "width", "outputs"), [(5, 9, 1), (9, 5, 2)])
def test_refit_is_numpys_minimum_norm_solution(n_train, width, outputs, measure):
    """More features than samples (the fit is exact) and fewer (it is not)."""
    model = MeanFieldNetwork(3, width, outputs, key=jr.key(4))
    system = System(_problem(outputs, n_train), model)
    problem = system.problem
    phi, phi_test = (np.stack([model.hidden_features(row) for row in x]) for x in (problem.x_train, problem.x_test))
    # rcond cuts singular values: the square root of the share that cuts eigenvalues.
    readout = np.linalg.lstsq(phi, np.asarray(problem.y_train), rcond=1e-5)[0]
    expected = [
        0.5 * np.mean(np.sum((features @ readout - np.asarray(y)) ** 2, axis=1))
        for features, y in ((phi, problem.y_train), (phi_test, problem.y_test))
    ]
    found = measure(HiddenLearning(), system, system.weights(model))
    # The normal equations square the condition number (1e4 here), so half of the digits are left at worst.
    np.testing.assert_allclose(found["refit_train_loss"], expected[0], rtol=1e-8, atol=1e-20)
    np.testing.assert_allclose(found["refit_test_loss"], expected[1], rtol=1e-8)


@pytest.mark.parametrize(("gap", "loss"), [(3e-5, 1 / 3), (4e-5, 0.0)], ids=["below", "above"])
def test_refit_leaves_out_modes_below_the_cutoff(gap, loss, measure):
    """Twins with different targets: their difference is a mode of relative eigenvalue 0.9e-10 and 1.6e-10."""
    model = MeanFieldNetwork(3, 6, key=jr.key(4))
    x = jr.normal(jr.key(0), (2, 3))
    x = jnp.concatenate([x, x[:1] + gap])
    system = System(Problem(x, jnp.asarray([[1.0], [0.0], [-1.0]])), model)
    found = measure(HiddenLearning(), system, system.weights(model))
    assert set(found) == {"refit_train_loss"}
    # The best common value of the twins is 0, up to `gap`: they keep a loss of (1 + 1)/(2 * 3).
    np.testing.assert_allclose(found["refit_train_loss"], loss, rtol=1e-3, atol=1e-6)


def test_refit_does_not_depend_on_the_output_layer(measure, moved):
    model = MeanFieldNetwork(3, 6, output_scale=5.0, key=jr.key(4))
    features = RandomFeatures.of(model)
    system = System(_problem(1), features)
    weights = system.weights(features)
    first, second = (measure(HiddenLearning(), system, w) for w in (weights, moved(weights)))
    assert first == second
    network = System(_problem(1), model)
    same = measure(HiddenLearning(), network, network.weights(model))
    np.testing.assert_allclose(same["refit_test_loss"], first["refit_test_loss"], rtol=1e-12)
