"""Runs that fail: a code and a sentence that say what and when, and everything up to there kept."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from simulate.linear import Axes, Linear, flow_down

import gnflow as gn
from gnflow import ResultCode
from gnflow.geometry.damping import Exponential
from gnflow.geometry.directions import Cholesky


def assert_kept(trajectory, end, rows=5):
    """Rows up to the failure, finite, the last at its time."""
    time = trajectory.data.time.values
    assert time[-1] == trajectory.result.time
    assert len(time) > rows
    assert np.all(np.diff(time) > 0)
    assert np.all(np.isfinite(trajectory.data.train_loss))
    assert trajectory.result.failed
    np.testing.assert_allclose(time[-1], end, rtol=1e-4)


def test_a_model_that_becomes_nan():
    """w_0 = 3 (1 - exp(-t/2)) reaches the edge at 2 when t = 2 ln 3."""
    axes = Axes()
    trajectory = flow_down(axes, Linear.at([0.0, 0.0], edge=200), throw=False, rtol=1e-6)
    assert trajectory.result.code == ResultCode.STEP_SIZE_TOO_SMALL
    assert "not finite" in trajectory.result.message
    assert f"{trajectory.result.time:.6g}" in trajectory.result.message
    assert_kept(trajectory, 2 * np.log(3))
    np.testing.assert_allclose(trajectory.model.w, axes.weights(2 * np.log(3)), rtol=1e-5)
    np.testing.assert_allclose(
        trajectory.data.train_loss, [axes.loss(t) for t in trajectory.data.time.values], rtol=1e-4
    )


def test_a_failure_is_raised_with_the_run_so_far():
    with pytest.raises(gn.SimulationError, match="step_size_too_small") as caught:
        flow_down(Axes(), Linear.at([0.0, 0.0], edge=200), rtol=1e-6)
    assert isinstance(caught.value, gn.GnflowError)
    assert_kept(caught.value.trajectory, 2 * np.log(3))


def test_steps_that_are_used_up():
    """Rates 1/2 and 5e7: an explicit solver's 16384 steps end long before the slow one has gone far."""
    axes = Axes(scales=(1.0, 1e4))
    trajectory = flow_down(axes, t1=100.0, solver="tsit5", throw=False)
    assert trajectory.result.code == ResultCode.MAX_STEPS_REACHED
    assert "16384" in trajectory.result.message
    assert "stiff for an explicit solver" in trajectory.result.message
    assert "solver='exponential'" in trajectory.result.message
    assert trajectory.stats["num_steps"] == 16384
    assert 0 < trajectory.result.time < 1
    assert_kept(trajectory, trajectory.result.time)
    np.testing.assert_allclose(trajectory.model.w[0], axes.weights(trajectory.result.time)[0], rtol=1e-3)
    with pytest.raises(gn.SimulationError, match="max_steps_reached"):
        flow_down(axes, t1=100.0, solver="tsit5")


def test_a_solver_that_stiffness_does_not_stop_is_not_called_stiff():
    trajectory = flow_down(Axes(scales=(1.0, 1e4)), t1=100.0, max_steps=1, throw=False)
    assert trajectory.result.code == ResultCode.MAX_STEPS_REACHED
    assert "max_steps = 1 " in trajectory.result.message
    assert "'exponential'" in trajectory.result.message
    assert "loosen rtol" in trajectory.result.message
    assert "the columns of x have a root mean square of 7.1e-01 to 7.1e+03" in trajectory.result.message
    assert "standardise x" in trajectory.result.message
    assert "stiff" not in trajectory.result.message


def test_a_first_loss_that_is_not_finite():
    trajectory = flow_down(Axes(), Linear.at([1.0, 0.0], edge=50), throw=False)
    assert trajectory.result.code == ResultCode.NON_FINITE
    assert trajectory.result.time == 0
    assert "initial model" in trajectory.result.message
    assert trajectory.data.sizes["time"] == 1


@pytest.fixture(scope="module")
def lifted_damping():
    """Cholesky on a singular Gram matrix (a sample given twice), with damping that is lifted at some rate."""
    problem = make_problem()
    twice = gn.Problem(problem.x_train[jnp.array([0, 0, 1, 2])], problem.y_train)

    def run(start, rate, **options):
        flow = gn.flows.GaussNewtonFlow("identity", Exponential(start, rate), Cholesky())
        metrics = (gn.metrics.DirectionDiagnostics(),)
        return gn.simulate(twice, mean_field(), flow, t1=200.0, metrics=metrics, **options)

    return run


def test_a_solve_that_breaks_down_at_the_start(lifted_damping):
    trajectory = lifted_damping(0.0, 0.0, throw=False)
    assert trajectory.result.code == ResultCode.DIRECTION_FAILED
    assert "TruncatedEigh" in trajectory.result.message
    assert trajectory.result.time == 0
    assert np.all(np.isfinite(trajectory.data.train_loss))
    with pytest.raises(gn.SimulationError, match="direction_failed"):
        lifted_damping(0.0, 0.0)


def test_a_solve_that_breaks_down_on_the_way(lifted_damping):
    """exp(-5 t) vanishes beside the Gram matrix at t = 7 or so."""
    trajectory = lifted_damping(0.1, 5.0, throw=False)
    assert trajectory.result.code in (ResultCode.DIRECTION_FAILED, ResultCode.STEP_SIZE_TOO_SMALL)
    assert "damping" in trajectory.result.message
    assert 3 < trajectory.result.time < 10
    assert_kept(trajectory, trajectory.result.time)
    np.testing.assert_allclose(trajectory.data.damping, 0.1 * np.exp(-5 * trajectory.data.time), rtol=1e-12)


def test_enough_damping_gets_through(lifted_damping):
    """To where the two targets of one input leave nothing to gain."""
    trajectory = lifted_damping(0.1, 0.0)
    assert trajectory.result.code == ResultCode.STATIONARY
    assert "1 input occurs more than once with different targets" in trajectory.result.message


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"t1": 0.0}, "t1 = 0.0"),
        ({"t1": -1.0}, "t1 = -1.0"),
        ({"t1": float("inf")}, "t1 = inf"),
        ({"t1": float("nan")}, "t1 = nan"),
        ({"rtol": 0.0}, "rtol = 0.0"),
        ({"rtol": 1.5}, "rtol = 1.5"),
        ({"rtol": float("nan")}, "rtol = nan"),
        ({"atol": 0.0}, "atol = 0.0"),
        ({"atol": -1e-9}, "atol = -1e-09"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"solver": "tist5"}, "did you mean 'tsit5'"),
        ({"solver": 5}, "solver = 5"),
        ({"error_norm": "weight"}, "did you mean 'weights'"),
    ],
)
def test_bad_arguments_are_named(options, match):
    with pytest.raises(gn.ConfigError, match=match):
        flow_down(**options)


OBJECTS_CALLED_BY_NAME = """
import jax
jax.config.update("jax_enable_x64", True)
import gnflow as gn, numpy as np
model = gn.models.MeanFieldNetwork(2, 3, key=jax.random.key(0))
for wrong in ({"flow": "gradient"}, {"metrics": ("ntk",)}):
    try:
        options = {"flow": gn.flows.GradientFlow(), "t1": 1.0} | wrong
        gn.simulate(gn.Problem(np.eye(2), np.ones(2)), model, **options)
    except gn.ConfigError as error:
        print(error)
"""


def test_names_instead_of_objects():
    """In these tests beartype is faster to refuse them; outside it is gnflow's own message that counts."""
    done = subprocess.run([sys.executable, "-c", OBJECTS_CALLED_BY_NAME], capture_output=True, text=True, check=True)
    assert "flow = 'gradient'; expected a flow" in done.stdout
    assert "metrics[0] = 'ntk'; expected a metric" in done.stdout


def test_a_metric_given_twice_is_refused():
    metric = gn.metrics.RelativeWeightMovement()
    with pytest.raises(gn.ConfigError, match="two metrics"):
        flow_down(metrics=(metric, metric))


def test_a_model_that_does_not_fit_the_problem_is_refused():
    with pytest.raises(gn.ModelError, match="shape"):
        flow_down(model=Linear.at([0.0, 0.0, 0.0]))
    with pytest.raises(gn.ModelError, match=r"not an equinox\.Module"):
        gn.simulate(Axes().problem, lambda x: x[:1], gn.flows.GradientFlow())


def test_float32_is_refused():
    model = Linear(jnp.zeros(2, dtype=jnp.float32), jnp.asarray(10**6))
    with pytest.raises(gn.PrecisionError, match=r"\.w is float32"):
        flow_down(model=model)
    axes, model = Axes(), Linear.at([0.0, 0.0])
    with jax.enable_x64(False), pytest.raises(gn.PrecisionError, match="jax_enable_x64"):
        flow_down(axes, model)


@pytest.mark.slow
def test_a_flow_that_sees_no_gradient_says_why_it_does_not_move():
    """All samples lie beyond Huber's delta, where its Hessian is zero; without damping nothing moves."""
    problem = gn.Problem(np.ones((2, 1)), np.full(2, 100.0), loss=gn.losses.HuberLoss(1.0))
    flow = gn.flows.GaussNewtonFlow(metric="hessian", damping=gn.damping.Constant(0.0))
    trajectory = gn.simulate(problem, Linear.at([0.0]), flow, throw=False)
    assert trajectory.result.code == ResultCode.HORIZON_REACHED
    assert "the velocity is zero although the gradient of the loss is not" in trajectory.result.message
    assert "damping above zero" in trajectory.result.message


@pytest.mark.slow
def test_a_rule_that_was_not_met_says_what_may_keep_it_from_that():
    options = {"t1": 1e9, "max_steps": 20, "throw": False}
    trajectory = flow_down(Axes(), solver="tsit5", stop=gn.VelocityNorm(1e-200), **options)
    assert trajectory.result.code == ResultCode.MAX_STEPS_REACHED
    assert "VelocityNorm(1e-200) may lie below what weights of this accuracy come to" in trajectory.result.message


@pytest.mark.slow
def test_iterations_of_a_solve_are_told_and_that_one_ended_too_early():
    def run(max_steps, throw):
        solver = gn.directions.ConjugateGradients(1e-6, max_steps, gn.directions.MeanKernel())
        flow = gn.flows.GaussNewtonFlow("identity", gn.damping.LargestEigenvalue(1e-3), solver)
        return gn.simulate(make_problem(), mean_field(), flow, t1=1.0, throw=throw)

    stats = run(100, True).stats
    assert 0 < stats["final_iterations"] < 30
    assert stats["final_relative_residual"] < 1e-6
    short = run(1, False)
    assert short.stats["final_iterations"] == 1
    assert "the solve for the direction fell short" in short.result.message
