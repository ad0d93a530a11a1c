"""Runs against SciPy's solver on velocities written out in NumPy; what the tolerances do."""

import functools

import numpy as np
import pytest
from facts.recording import NUM_TRAIN, TIMES, WIDTH, make_problem, mean_field, record
from scipy.integrate import solve_ivp

import gnflow as gn
from gnflow.flows import GaussNewtonFlow, GradientFlow
from gnflow.geometry.damping import SmallestEigenvalue


def unpacked(vector):
    """u (M, d), b (M,), v (M, C) from all weights in one vector."""
    u, b, v = np.split(vector, [2 * WIDTH, 3 * WIDTH])
    return u.reshape(WIDTH, 2), b, v.reshape(WIDTH, 2)


def outputs_and_jacobian(vector, x):
    """f (NC,) and J (NC, P) of the SiLU network with the mean-field scaling."""
    u, b, v = unpacked(vector)
    z = x @ u.T + b
    gate = 1 / (1 + np.exp(-z))
    s, slope = z * gate, gate + z * gate * (1 - gate)
    rows = []
    for n in range(len(x)):
        for c in range(2):
            by_hidden = slope[n] * v[:, c]
            by_output = np.zeros((WIDTH, 2))
            by_output[:, c] = s[n]
            rows.append(np.concatenate([np.outer(by_hidden, x[n]).ravel(), by_hidden, by_output.ravel()]))
    return (s @ v).reshape(-1) / WIDTH, np.array(rows) / WIDTH


def velocity(kind, problem):
    x, y = np.asarray(problem.x_train), np.asarray(problem.y_train).reshape(-1)

    def gradient_flow(_, vector):
        outputs, jacobian = outputs_and_jacobian(vector, x)
        return -WIDTH * jacobian.T @ (outputs - y) / NUM_TRAIN

    def gauss_newton(_, vector):
        outputs, jacobian = outputs_and_jacobian(vector, x)
        gram = jacobian @ jacobian.T
        damping = max(1e-7, np.linalg.eigvalsh(gram)[0])
        return -jacobian.T @ np.linalg.solve(gram + damping * np.eye(len(gram)), (outputs - y) / NUM_TRAIN)

    return {"gradient": gradient_flow, "gauss-newton": gauss_newton}[kind]


FLOWS = {
    "gradient": GradientFlow(),
    "gauss-newton": GaussNewtonFlow("identity", SmallestEigenvalue(factor=1.0, floor=1e-7)),
}


@functools.cache
def reference(kind, seed, times):
    problem, model = make_problem(seed), mean_field(seed)
    start = np.concatenate([np.ravel(a) for a in (model.hidden_weight, model.hidden_bias, model.output_weight)])
    span = (0.0, times[-1])
    solution = solve_ivp(
        velocity(kind, problem), span, start, "DOP853", t_eval=times, rtol=1e-11, atol=1e-13, dense_output=True
    )
    assert solution.success
    return solution


def weights_of(model):
    return np.concatenate([np.ravel(a) for a in (model.hidden_weight, model.hidden_bias, model.output_weight)])


@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_flow_against_scipy(seed):
    trajectory = record(make_problem(seed), mean_field(seed), FLOWS["gradient"])
    expected = reference("gradient", seed, TIMES).y.T
    np.testing.assert_allclose(trajectory.data.weights[1:], expected, rtol=0, atol=1e-8)
    x, y = np.asarray(trajectory.problem.x_test), np.asarray(trajectory.problem.y_test).reshape(-1)
    test_losses = [np.sum((outputs_and_jacobian(w, x)[0] - y) ** 2) / 2 / len(x) for w in expected]
    np.testing.assert_allclose(trajectory.data.test_loss[1:], test_losses, rtol=1e-7)


@pytest.fixture(scope="module")
def default_run():
    """run(seed, **numbers): Gauss-Newton as a first user runs it, everything at its default."""

    def run(seed, **numbers):
        return gn.simulate(make_problem(seed), mean_field(seed), FLOWS["gauss-newton"], **numbers)

    return run


@pytest.mark.parametrize("seed", [0, 1])
def test_gauss_newton_against_scipy(default_run, seed):
    trajectory = default_run(seed, rtol=1e-8)
    assert trajectory.result.code == gn.ResultCode.STOP_RULE_MET
    time = trajectory.data.time.values
    solution = reference("gauss-newton", seed, (time[-1],))
    scale = np.abs(solution.y).max()
    np.testing.assert_allclose(weights_of(trajectory.model), solution.y[:, -1], rtol=0, atol=1e-5 * scale)
    x, y = np.asarray(trajectory.problem.x_train), np.asarray(trajectory.problem.y_train).reshape(-1)
    losses = [np.sum((outputs_and_jacobian(solution.sol(t), x)[0] - y) ** 2) / 2 / NUM_TRAIN for t in time]
    np.testing.assert_allclose(trajectory.data.train_loss, losses, rtol=1e-4)
    loss = trajectory.data.train_loss.values
    np.testing.assert_allclose(loss[-1] / loss[0], 1e-8, rtol=1e-5)
    assert trajectory.stats["final_damping"] >= 1e-7


def test_the_default_tolerance_is_good_for_plots(default_run):
    """And few steps reach a relative loss of 1e-8: an error norm relative to the residual never stalls.

    The two are different methods.
    """
    rough, fine = default_run(0), default_run(0, rtol=1e-8)
    assert (rough.stats["solver"], fine.stats["solver"]) == ("tsit5", "dopri8")
    assert rough.stats["num_steps"] < 30
    np.testing.assert_allclose(rough.data.test_loss[-1], fine.data.test_loss[-1], rtol=5e-3)
    np.testing.assert_allclose(rough.result.time, fine.result.time, rtol=5e-3)


@pytest.mark.parametrize("error_norm", ["function", "weights"])
def test_a_tighter_tolerance_is_a_smaller_error(error_norm):
    expected = reference("gradient", 0, TIMES).y.T
    tolerances = np.array([1e-3, 1e-5, 1e-7])
    # Not order 8: on this smooth problem its steps are as long as the saves and the growth of the step size allow.
    options = {"solver": "tsit5", "error_norm": error_norm}
    runs = [record(make_problem(), mean_field(), FLOWS["gradient"], rtol=rtol, **options) for rtol in tolerances]
    errors = np.array([np.abs(run.data.weights[1:].values - expected).max(axis=1) for run in runs])
    assert np.all(errors < 20 * tolerances[:, None]), errors
    # At the end: before the first save all take the same first steps.
    assert np.all(errors[1:, -1] < errors[:-1, -1] / 10), errors
    steps = [run.stats["num_steps"] for run in runs]
    assert steps[0] < steps[1] < steps[2]
    assert [run.settings["error_norm"] for run in runs] == [error_norm] * 3


def test_the_path_length_is_the_integral_of_the_speed():
    solution, field = reference("gradient", 0, TIMES), velocity("gradient", make_problem())
    nodes, weights = np.polynomial.legendre.leggauss(400)
    expected = [
        sum(
            w * np.linalg.norm(field(0, solution.sol(end * (1 + node) / 2)))
            for node, w in zip(nodes, weights, strict=True)
        )
        * end
        / 2
        for end in TIMES
    ]
    trajectory = record(make_problem(), mean_field(), FLOWS["gradient"])
    np.testing.assert_allclose(trajectory.data.path_length, [0, *expected], rtol=1e-7)
    displacement = np.linalg.norm(trajectory.data.weights - trajectory.data.weights[0], axis=1)
    assert np.all(trajectory.data.path_length[1:] > displacement[1:])
