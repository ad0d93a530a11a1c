"""Discrete Gauss-Newton and gradient descent against arrays of [A]'s released code (../shared/oracles)."""

import functools
from pathlib import Path

import numpy as np
import pytest

import gnflow as gn
from gnflow.geometry.damping import Constant, SmallestEigenvalue
from gnflow.metrics import DirectionDistance

FOLDER = Path(__file__).parents[2].parent / "shared" / "oracles"
CASES = ["two_layer_silu_d3_M64_N20_tau1", "two_layer_silu_d10_M200_N40_tau0.1"]
STEP_SIZE = 10.0
every_oracle = pytest.mark.parametrize("case", CASES)


@functools.cache
def arrays_of(case):
    path = FOLDER / f"{case}.npz"
    if not path.exists():
        pytest.skip(f"no reference arrays at {path}")
    with np.load(path) as file:
        return dict(file)


def network(arrays, prefix):
    parts = ("hidden_weight", "hidden_bias", "output_weight")
    return gn.models.MeanFieldNetwork.from_arrays(*(arrays[f"{prefix}_{part}"] for part in parts))


def problem_of(arrays):
    data = (arrays[name] for name in ("X_train", "Y_train", "X_test", "Y_test"))
    return gn.Problem(*data, teacher=network(arrays, "teacher"))


@functools.cache
def replay(case, method):
    """All iterations, each saved."""
    arrays = arrays_of(case)
    if method == "gn":
        flow = gn.flows.GaussNewtonFlow("identity", SmallestEigenvalue(factor=1.0, floor=1e-7))
    else:
        flow = gn.flows.GradientFlow(mobility=1.0)
    count = len(arrays[f"{method}_train_loss"])
    metrics = (DirectionDistance("initial"), DirectionDistance("teacher"))
    start = network(arrays, "init")
    return gn.iterate(problem_of(arrays), start, flow, step_size=STEP_SIZE, num_steps=count, metrics=metrics)


@every_oracle
def test_gauss_newton_losses(case):
    arrays, data = arrays_of(case), replay(case, "gn").data
    assert data.sizes["step"] == len(arrays["gn_train_loss"]) + 1
    for found, expected in (
        (data.train_loss[:-1], arrays["gn_train_loss"]),
        (data.train_loss[1:], arrays["gn_train_loss_after"]),
    ):
        above = expected > 1e-14
        assert above.sum() > 15
        np.testing.assert_allclose(found[above], expected[above], rtol=1e-8)
        # Below that, outputs of order one are rounded, which the residual sqrt(2 L) magnifies.
        further = (expected > 1e-18) & ~above
        rounding = 8 * np.finfo(float).eps / np.sqrt(2 * expected[further])
        assert np.all(np.abs(found[further] / expected[further] - 1) < rounding)
        assert np.all(found[expected <= 1e-18] < 1e-17)
    np.testing.assert_allclose(data.test_loss[1:], arrays["gn_test_loss"], rtol=1e-10)


@every_oracle
def test_gauss_newton_damping(case):
    arrays, data = arrays_of(case), replay(case, "gn").data
    np.testing.assert_allclose(data.damping[:-1], arrays["gn_damping"], rtol=1e-9)


@every_oracle
def test_gradient_descent_losses(case):
    arrays, data = arrays_of(case), replay(case, "gd").data
    np.testing.assert_allclose(data.train_loss[:-1], arrays["gd_train_loss"], rtol=1e-12)
    np.testing.assert_allclose(data.train_loss[1:], arrays["gd_train_loss_after"], rtol=1e-12)
    np.testing.assert_allclose(data.test_loss[1:], arrays["gd_test_loss"], rtol=1e-10)


@every_oracle
@pytest.mark.parametrize("method", ["gn", "gd"])
def test_final_weights(case, method):
    arrays, model = arrays_of(case), replay(case, method).model
    for part in ("hidden_weight", "hidden_bias", "output_weight"):
        np.testing.assert_allclose(getattr(model, part), arrays[f"{method}_final_{part}"], rtol=1e-9, atol=1e-10)


@every_oracle
@pytest.mark.parametrize("method", ["gn", "gd"])
def test_direction_distances_along_the_run(case, method):
    arrays, data = arrays_of(case), replay(case, method).data
    for name, prefix in (("initial", "init"), ("teacher", "target")):
        expected = arrays[f"{method}_{prefix}_direction_distance"]
        found = data[f"direction_distance_to_{name}"].values[1:]
        # The reference took the square root of 2 (1 - cos), whose error of machine epsilon grows to eps / d.
        assert np.all(np.abs(found - expected) < 1e-9 * expected + np.minimum(4e-15 / expected, 3e-8)), name


@every_oracle
def test_the_relative_loss_is_met_at_the_reference_iteration(case):
    """Its iteration k is our step k - 1, the state before the k-th step."""
    arrays, loss = arrays_of(case), replay(case, "gn").data.train_loss.values
    met = np.flatnonzero(loss <= 1e-8 * loss[0])[0]
    assert met == int(arrays["gn_stop_iter"]) - 1


@every_oracle
def test_random_features_in_one_undamped_step(case):
    """With step size N undamped Gauss-Newton solves a linear least-squares problem in one step, with minimum norm."""
    arrays = arrays_of(case)
    problem = problem_of(arrays)
    start = gn.models.RandomFeatures.of(network(arrays, "init"))
    flow = gn.flows.GaussNewtonFlow("identity", Constant(0.0))
    end = gn.iterate(problem, start, flow, step_size=float(problem.num_train), num_steps=1)
    expected = arrays["rf_output_weight_final"]
    np.testing.assert_allclose(end.model.output_weight, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert float(end.data.train_loss[-1]) < 1e-20
    np.testing.assert_allclose(end.data.test_loss[-1], arrays["rf_losses"][1], rtol=1e-6)


@every_oracle
def test_another_step_size_is_another_method(case):
    """The equalities above are not for nothing."""
    arrays = arrays_of(case)
    flow = gn.flows.GradientFlow(mobility=1.0)
    metrics = (DirectionDistance("initial"), DirectionDistance("teacher"))
    start = network(arrays, "init")
    other = gn.iterate(problem_of(arrays), start, flow, step_size=9.999, num_steps=5, metrics=metrics)
    assert np.abs(other.data.train_loss[1:] / arrays["gd_train_loss_after"][:5] - 1).min() > 1e-9
