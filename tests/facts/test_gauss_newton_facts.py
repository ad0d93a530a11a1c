"""docs/theory.md, exact facts 1: undamped Gauss-Newton moves the outputs along a straight line, in any network.

And fact 6: where there are fewer weights than outputs, it is the same flow in any coordinates of the weights.
"""

import functools

import jax
import numpy as np
import pytest
from facts.recording import (
    NUM_TRAIN,
    TIMES,
    Warped,
    equinox_mlp,
    make_problem,
    mean_field,
    mlp,
    record,
    residuals,
)

import gnflow as gn
from gnflow.flows import GaussNewtonFlow, GradientFlow
from gnflow.geometry.damping import Constant

# How the model is made, its outputs, the metric, and the rate: 1 for the Hessian, 1/N for the identity.
CASES = {
    "mean field": (mean_field, 2, "hessian", 1.0),
    "mlp": (mlp, 2, "identity", 1 / NUM_TRAIN),
    "equinox": (equinox_mlp, 1, "hessian", 1.0),
}


@functools.cache
def run(case, seed, damping=0.0):
    make, num_outputs, metric, rate = CASES[case]
    flow = GaussNewtonFlow(metric, Constant(damping))
    return record(make_problem(seed, num_outputs), make(seed), flow, np.array(TIMES) / rate)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_outputs_go_straight_to_the_targets(case, seed):
    trajectory, rate = run(case, seed), CASES[case][3]
    time = trajectory.data.time.values
    np.testing.assert_allclose(time, [0, *np.array(TIMES) / rate], rtol=1e-14)
    found = residuals(trajectory)
    expected = np.exp(-rate * time)[:, None] * found[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(found[0]).max())
    loss = trajectory.data.train_loss.values
    np.testing.assert_allclose(loss, np.exp(-2 * rate * time) * loss[0], rtol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_the_weights_do_not_move_on_a_straight_line(case):
    """The line is a fact about outputs: if the model were linear in its weights the test above would test nothing."""
    weights = run(case, 0).data.weights.values
    change = weights - weights[0]
    along = change @ change[-1] / np.linalg.norm(change[-1])
    assert np.linalg.norm(change[1]) ** 2 - along[1] ** 2 > 1e-6 * np.linalg.norm(change[1]) ** 2


@pytest.mark.parametrize("case", CASES)
def test_damping_bends_the_line(case):
    found = residuals(run(case, 0, damping=0.05))
    time = np.array([0, *TIMES])
    assert np.abs(found - np.exp(-time)[:, None] * found[0]).max() > 1e-3 * np.abs(found[0]).max()
    assert relative_distance_from_line(found) > 1e-3


def test_gradient_flow_takes_another_way():
    found = residuals(record(make_problem(), mean_field(), GradientFlow()))
    assert relative_distance_from_line(found) > 1e-2


@pytest.mark.slow
def test_too_few_weights_bend_the_line(curve_runs):
    found = residuals(curve_runs(GaussNewtonFlow("hessian", Constant(0.0)), 0))
    assert relative_distance_from_line(found) > 1e-2


def relative_distance_from_line(found):
    """How far the last residual is from the line through the first one and the origin."""
    direction = found[0] / np.linalg.norm(found[0])
    return np.linalg.norm(found[-1] - (found[-1] @ direction) * direction) / np.linalg.norm(found[-1])


@pytest.fixture(scope="module")
def curve_runs():
    """runs(flow, curvature): the same function of x at the start, in straight or in curved coordinates."""
    data = make_problem(3)
    teacher = jax.vmap(Warped.at([1.0, -0.7, 0.9, 0.6], 0))
    problem = gn.Problem(data.x_train, teacher(data.x_train) + 0.3 * data.y_train, data.x_test, teacher(data.x_test))

    @functools.cache
    def run(flow, curvature):
        return record(problem, Warped.at([0.8, -0.5, 1.1, 0.4], curvature), flow)

    return run


def test_gauss_newton_does_not_see_the_coordinates(curve_runs):
    flow = GaussNewtonFlow("hessian", Constant(0.0))
    straight, curved = curve_runs(flow, 0), curve_runs(flow, 1)
    assert straight.stats["final_rank"] == curved.stats["final_rank"] == 4
    for name in ("train_outputs", "test_outputs"):
        np.testing.assert_allclose(curved.data[name], straight.data[name], rtol=0, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(curved.model.weights, straight.model.weights, rtol=0, atol=1e-8)
    # The premise: the coordinates differ, and the weights do move.
    assert np.abs(curved.data.weights - straight.data.weights).max() > 0.05
    assert np.abs(straight.data.weights[-1] - straight.data.weights[0]).max() > 0.1


@pytest.mark.parametrize(
    "flow", [GradientFlow(), GaussNewtonFlow("hessian", Constant(0.3))], ids=["gradient", "damped"]
)
def test_gradient_flow_and_damping_do(curve_runs, flow):
    straight, curved = curve_runs(flow, 0), curve_runs(flow, 1)
    np.testing.assert_allclose(curved.data.train_outputs[0], straight.data.train_outputs[0], atol=1e-12)
    assert np.abs(curved.data.train_outputs - straight.data.train_outputs).max() > 1e-2
