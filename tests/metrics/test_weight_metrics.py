"""Movement of the weights, the linearisation error and the path length."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from gnflow.geometry import System
from gnflow.metrics import LinearisationError, PathLength, RelativeWeightMovement, WeightChange
from gnflow.models import MLP, MeanFieldNetwork, RandomFeatures
from gnflow.problems import Problem

_PROBLEM = Problem(jr.normal(jr.key(0), (5, 3)), jr.normal(jr.key(1), (5, 1)))
_NAME = "relative_weight_movement"


def _norm(*arrays):
    return np.sqrt(sum(np.sum(np.asarray(array) ** 2) for array in arrays))


def test_movement_of_a_network_whose_output_weights_start_at_zero(measure, moved):
    model = MeanFieldNetwork(3, 4, key=jr.key(2))
    system = System(_PROBLEM, model)
    start = system.weights(model)
    weights = moved(start)
    hidden = _norm(weights.hidden_weight - start.hidden_weight, weights.hidden_bias - start.hidden_bias)
    output = _norm(weights.output_weight - start.output_weight)
    whole = _norm(start.hidden_weight, start.hidden_bias, start.output_weight)
    found = measure(RelativeWeightMovement(), system, weights, start)
    expected = {
        _NAME: np.hypot(hidden, output) / whole,
        f"{_NAME}_hidden": hidden / whole,
        f"{_NAME}_output": output / whole,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-14, err_msg=name)


@pytest.mark.parametrize("trainable", ["hidden", "output", "hidden_bias"])
def test_layers_that_are_not_trained_have_not_moved(trainable, measure, moved):
    model = MeanFieldNetwork(3, 4, output_init_scale=1.0, key=jr.key(2))
    system = System(_PROBLEM, model, trainable)
    start = system.weights(model)
    found = measure(RelativeWeightMovement(), system, moved(start), start)
    moving = trainable.split("_")[0]
    resting = {"hidden": "output", "output": "hidden"}[moving]
    assert float(found[f"{_NAME}_{moving}"]) == float(found[_NAME]) > 0
    assert float(found[f"{_NAME}_{resting}"]) == 0


def test_layers_of_a_deep_network(measure, moved):
    """Paths with indices: every layer but the last is hidden, and the squares add up."""
    model = MLP(3, 4, 2, key=jr.key(2))
    system = System(_PROBLEM, model)
    start = system.weights(model)
    weights = moved(start)
    found = measure(RelativeWeightMovement(), system, weights, start)
    last = jax.tree.map(jnp.subtract, weights.layers[-1], start.layers[-1])
    np.testing.assert_allclose(
        found[f"{_NAME}_output"], _norm(last.weight, last.bias) / _norm(*jax.tree.leaves(start)), rtol=1e-14
    )
    np.testing.assert_allclose(found[_NAME], np.hypot(found[f"{_NAME}_hidden"], found[f"{_NAME}_output"]), rtol=1e-14)


def test_weights_that_all_start_at_zero(measure, moved):
    """0/0 at the start is 0; any movement from zero is infinitely large beside it."""
    model = RandomFeatures(3, 4, key=jr.key(2))
    system = System(_PROBLEM, model)
    start = system.weights(model)
    assert {float(value) for value in measure(RelativeWeightMovement(), system, start).values()} == {0.0}
    later = measure(RelativeWeightMovement(), system, moved(start), start)
    assert {float(value) for value in later.values()} == {np.inf}


def test_weight_change_is_that_of_the_flat_weights(measure, moved):
    model = MLP(3, 4, 2, key=jr.key(2))
    system = System(_PROBLEM, model)
    start = system.weights(model)
    weights = moved(start)
    first, now = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(w)]) for w in (start, weights))
    found = measure(WeightChange(), system, weights, start)
    np.testing.assert_allclose(found["weight_change_norm"], np.linalg.norm(now - first), rtol=1e-14)
    cosine = now @ first / (np.linalg.norm(now) * np.linalg.norm(first))
    np.testing.assert_allclose(found["weight_cosine"], cosine, rtol=1e-14)
    assert 0 < cosine < 0.99
    opposite = measure(WeightChange(), system, jax.tree.map(lambda leaf: -3 * leaf, start), start)
    np.testing.assert_allclose(opposite["weight_cosine"], -1, rtol=1e-14)


def test_weight_change_only_sees_trained_weights(measure, moved):
    model = MeanFieldNetwork(3, 4, output_init_scale=1.0, key=jr.key(2))
    system = System(_PROBLEM, model, "output")
    start = system.weights(model)
    weights = moved(start)
    found = measure(WeightChange(), system, weights, start)
    expected = _norm(weights.output_weight - start.output_weight)
    np.testing.assert_allclose(found["weight_change_norm"], expected, rtol=1e-14)
    cosine = np.vdot(weights.output_weight, start.output_weight) / (
        _norm(weights.output_weight) * _norm(start.output_weight)
    )
    np.testing.assert_allclose(found["weight_cosine"], cosine, rtol=1e-14)


def test_weights_of_norm_zero_have_no_direction(measure, moved):
    model = RandomFeatures(3, 4, key=jr.key(2))
    system = System(_PROBLEM, model)
    zero = system.weights(model)
    away = moved(zero)
    cosines = [
        float(measure(WeightChange(), system, now, start)["weight_cosine"])
        for now, start in ((zero, zero), (away, zero), (zero, away))
    ]
    assert cosines == [1.0, 0.0, 0.0]


def test_linearisation_error_against_a_dense_jacobian(measure, moved):
    model = MLP(3, 4, 2, key=jr.key(2))
    system = System(_PROBLEM, model)
    start = system.weights(model)
    weights = moved(start)
    outputs, jacobian = system.outputs(start), jax.jacfwd(system.outputs)(start)
    contract = jax.tree.map(lambda j, w, s: jnp.tensordot(j, w - s, (w - s).ndim), jacobian, weights, start)
    change = np.asarray(system.outputs(weights) - outputs)
    expected = np.linalg.norm(change - sum(jax.tree.leaves(contract))) / np.linalg.norm(change)
    found = measure(LinearisationError(), system, weights, start)["linearisation_error"]
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_linearisation_error_is_of_first_order_in_the_movement(measure, moved):
    """The numerator is quadratic, the denominator linear."""
    model = MeanFieldNetwork(3, 4, output_init_scale=1.0, key=jr.key(2))
    system = System(_PROBLEM, model)
    start = system.weights(model)
    large, small = (
        float(measure(LinearisationError(), system, moved(start, size), start)["linearisation_error"])
        for size in (1e-4, 1e-5)
    )
    assert large / small == pytest.approx(10, rel=1e-2)


def test_linearisation_error_where_no_output_has_changed(measure):
    """Hidden weights under zero output weights move without changing f: 0/0 = 0."""
    model = MeanFieldNetwork(3, 4, key=jr.key(2))
    system = System(_PROBLEM, model)
    start = system.weights(model)
    weights = jax.tree.map(lambda leaf: 2 * leaf, start)
    assert float(measure(LinearisationError(), system, weights, start)["linearisation_error"]) == 0


def test_path_length_integrates_the_norm_of_the_velocity(snapshot_at):
    model = MeanFieldNetwork(3, 4, output_init_scale=1.0, key=jr.key(2))
    system = System(_PROBLEM, model)
    weights = system.weights(model)
    length = PathLength().integrands(weights)["path_length"]
    np.testing.assert_allclose(length, _norm(*jax.tree.leaves(weights)), rtol=1e-14)
    snapshot = snapshot_at(system, weights, 2.5)
    assert float(PathLength().evaluate(snapshot, ())["path_length"]) == 2.5
