"""Metrics of [A] against the arrays that its released code produced (../shared/oracles)."""

import functools
from pathlib import Path

import numpy as np
import pytest

from gnflow.geometry import System
from gnflow.metrics import DirectionDistance, HiddenLearning
from gnflow.models import MeanFieldNetwork, RandomFeatures
from gnflow.problems import Problem

_FOLDER = Path(__file__).parents[2].parent / "shared" / "oracles"
_CASES = ["two_layer_silu_d3_M64_N20_tau1", "two_layer_silu_d10_M200_N40_tau0.1"]


@functools.cache
def _arrays(case):
    path = _FOLDER / f"{case}.npz"
    if not path.exists():
        pytest.skip(f"no reference arrays at {path}")
    with np.load(path) as file:
        return dict(file)


def _network(arrays, prefix):
    return MeanFieldNetwork.from_arrays(*(arrays[f"{prefix}_{part}"] for part in _PARTS))


_PARTS = ("hidden_weight", "hidden_bias", "output_weight")


def _problem(arrays):
    data = (arrays[name] for name in ("X_train", "Y_train", "X_test", "Y_test"))
    return Problem(*data, teacher=_network(arrays, "teacher"))


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.parametrize("method", ["gn", "gd"])
@pytest.mark.parametrize("moment", ["iter1", "iter10", "final"])
def test_direction_distances(case, method, moment, measure):
    arrays = _arrays(case)
    start = _network(arrays, "init")
    system = System(_problem(arrays), start)
    weights = system.weights(_network(arrays, f"{method}_{moment}"))
    index = {"iter1": 0, "iter10": 9, "final": -1}[moment]
    for reference, array in (("initial", "init"), ("teacher", "target")):
        found = measure(DirectionDistance(reference), system, weights, system.weights(start))
        expected = arrays[f"{method}_{array}_direction_distance"][index]
        # The reference took the square root of 2 (1 - cos), whose error of machine epsilon grows to eps/d.
        tolerance = 1e-12 * expected + min(4e-15 / expected, 3e-8)
        assert abs(float(found[f"direction_distance_to_{reference}"]) - expected) < tolerance, reference


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.parametrize("method", ["gn", "gd"])
def test_hidden_learning(case, method, measure):
    """The reference refits the output layer on the features after the last iteration."""
    arrays = _arrays(case)
    model = _network(arrays, f"{method}_final")
    system = System(_problem(arrays), model)
    found = measure(HiddenLearning(), system, system.weights(model))
    train, test = arrays[f"{method}_refit_losses_lin"]
    assert max(float(found["refit_train_loss"]), train) < 1e-22  # both are rounding: N < M
    np.testing.assert_allclose(found["refit_test_loss"], test, rtol=1e-9)


@pytest.mark.parametrize("case", _CASES)
def test_random_features_are_hidden_learning_at_the_start(case, measure):
    arrays = _arrays(case)
    model = RandomFeatures.of(_network(arrays, "init"))
    system = System(_problem(arrays), model)
    found = measure(HiddenLearning(), system, system.weights(model))
    np.testing.assert_allclose(found["refit_test_loss"], arrays["rf_losses"][1], rtol=1e-6)
