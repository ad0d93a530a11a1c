"""Discrete methods: Euler steps, what is saved of them, and how they end."""

import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import jacobian, make_problem, mean_field, steps
from simulate.linear import Axes, Linear

import gnflow as gn
from gnflow import GradientNorm, Movement, RelativeLoss, ResultCode
from gnflow.flows import GaussNewtonFlow, GradientFlow
from gnflow.geometry.damping import Exponential

STEP = 0.25
DAMPED = GaussNewtonFlow("identity", Exponential(start=0.2, rate=0.5, floor=0.05))


def linear_steps(model=None, axes=None, **options):
    """Gradient descent on two independent weights: r_k is multiplied by 1 - step scale_k^2 / 2."""
    axes = Axes() if axes is None else axes
    model = Linear.at([0.0, 0.0]) if model is None else model
    return gn.iterate(axes.problem, model, GradientFlow(1.0), **({"step_size": 1.0, "num_steps": 10} | options))


def test_steps_are_taken_along_the_velocity():
    run = linear_steps()
    assert run.data.step.values.tolist() == list(range(11))
    np.testing.assert_allclose(run.data.train_loss, 25 / 4 * 0.25 ** np.arange(11.0), rtol=1e-12)
    np.testing.assert_allclose(run.model.w, np.array([3, 4]) * (1 - 0.5**10), rtol=1e-14)
    assert run.result == gn.Result(ResultCode.NUM_STEPS_REACHED, run.result.message, 10.0)
    assert run.stats["num_steps"] == 10
    assert run.stats["solver"] == "euler"
    np.testing.assert_array_equal(run.initial_model.w, [0, 0])


def test_damped_gauss_newton_against_numpy():
    problem, model = make_problem(), mean_field()
    run = steps(problem, model, DAMPED, STEP, 1)
    jac = jacobian(model, problem.x_train)
    residual = (np.asarray(run.data.train_outputs[0]) - problem.y_train).reshape(-1)
    coefficients = np.linalg.solve(jac @ jac.T + 0.2 * np.eye(8), residual / 4)
    np.testing.assert_allclose(
        run.data.weights[1], run.data.weights[0].values - STEP * jac.T @ coefficients, rtol=0, atol=1e-13
    )
    assert run.data["rank"].values.tolist() == [8, 8]
    assert np.all(run.data.relative_residual < 1e-12)


def test_fewer_saves_are_the_same_steps():
    every, third = (steps(make_problem(), mean_field(), DAMPED, STEP, 10, save_every=k) for k in (1, 3))
    assert third.data.step.values.tolist() == [0, 3, 6, 9, 10]
    chosen = every.data.sel(step=third.data.step)
    for name in third.data.data_vars:
        np.testing.assert_allclose(third.data[name], chosen[name], rtol=1e-12, atol=1e-15, err_msg=name)
    assert steps(make_problem(), mean_field(), DAMPED, STEP, 2, save_every=5).data.step.values.tolist() == [0, 2]


def test_flow_time_and_what_a_schedule_sees():
    for save_every in (1, 3):
        data = steps(make_problem(), mean_field(), DAMPED, STEP, 10, save_every=save_every).data
        np.testing.assert_allclose(data.flow_time, STEP * data.step, rtol=1e-15)
        np.testing.assert_allclose(data.damping, np.maximum(0.05, 0.2 * np.exp(-0.5 * data.flow_time)), rtol=1e-14)
    assert data.flow_time.dims == ("step",)
    assert data.flow_time.attrs["units"] == "flow time"
    assert {"long_name", "units", "reference"} <= set(data.step.attrs)
    for name in data.data_vars:
        assert set(data[name].attrs) == {"long_name", "units", "reference"}, name
    half = steps(make_problem(), mean_field(), DAMPED, STEP / 2, 10).data
    np.testing.assert_allclose(half.damping, np.maximum(0.05, 0.2 * np.exp(-0.5 * STEP / 2 * half.step)), rtol=1e-14)


def test_the_path_length_is_that_of_the_polygon():
    data = steps(make_problem(), mean_field(), DAMPED, STEP, 10).data
    lengths = np.linalg.norm(np.diff(data.weights, axis=0), axis=1)
    np.testing.assert_allclose(data.path_length, [0, *np.cumsum(lengths)], rtol=1e-12)
    coarse = steps(make_problem(), mean_field(), DAMPED, STEP, 10, save_every=4).data
    np.testing.assert_allclose(coarse.path_length[-1], data.path_length[-1], rtol=1e-12)


NEVER = {"loss": RelativeLoss(1e-200), "gradient": GradientNorm(1e-200), "movement": Movement(1e6)}


@pytest.mark.parametrize(
    ("rules", "step"),
    [
        ({"loss": RelativeLoss(0.25**4 * 1.01)}, 4),
        ({"gradient": GradientNorm(2.5 * 0.5**3 * 1.01)}, 3),
        ({"movement": Movement(5 * (1 - 0.5**5) * 0.999)}, 5),
        ({"movement": Movement(4.0), "loss": RelativeLoss(0.25**2 * 1.01)}, 2),
    ],
)
@pytest.mark.parametrize("save_every", [1, 2])
def test_stop_rules_are_looked_at_after_the_saved_steps(rules, step, save_every):
    run = linear_steps(stop=tuple((NEVER | rules).values()), save_every=save_every)
    step = -(-step // save_every) * save_every
    assert run.result.code == ResultCode.STOP_RULE_MET
    assert run.result.time == run.data.step.values[-1] == step
    assert f"at step {step}" in run.result.message
    assert run.result.message.startswith(list(rules.values())[-1].describe())


def test_a_rule_met_at_the_start():
    run = linear_steps(stop=tuple((NEVER | {"gradient": GradientNorm(3.0)}).values()))
    assert run.result.code == ResultCode.STOP_RULE_MET_AT_START
    assert run.data.step.values.tolist() == [0]
    np.testing.assert_array_equal(run.model.w, [0, 0])


def test_rules_that_are_not_met():
    run = linear_steps(stop=tuple(NEVER.values()))
    assert run.result.code == ResultCode.NUM_STEPS_REACHED


def test_divergence_is_a_result():
    """1 - step/2 = -1e60: three steps overflow the loss."""
    axes = Axes(targets=(0.0, 5.0))  # the first weight stays at 0, away from the edge of the model
    run = linear_steps(axes=axes, step_size=2e60, throw=False)
    assert run.result.code == ResultCode.NON_FINITE
    assert "step size" in run.result.message
    assert run.result.time == run.data.step.values[-1] == 3
    assert np.all(np.isfinite(run.data.train_loss[:-1]))
    assert not np.isfinite(run.data.train_loss[-1])
    with pytest.raises(gn.SimulationError, match="non_finite") as caught:
        linear_steps(axes=axes, step_size=2e60)
    assert caught.value.trajectory.data.sizes["step"] == 4


def test_a_loss_that_is_not_finite_at_the_start():
    run = linear_steps(Linear.at([1.0, 0.0], edge=50), throw=False, stop=RelativeLoss(0.1))
    assert run.result.code == ResultCode.NON_FINITE
    assert "initial model" in run.result.message  # no step was taken, so none was too long
    assert run.data.sizes["step"] == 1


def test_a_direction_that_cannot_be_solved_for():
    problem = make_problem()
    twice = gn.Problem(problem.x_train[jnp.array([0, 0, 1, 2])], problem.y_train)
    flow = GaussNewtonFlow("identity", Exponential(1.0, 40.0), gn.directions.Cholesky())
    run = gn.iterate(twice, mean_field(), flow, step_size=0.5, num_steps=10, throw=False)
    assert run.result.code == ResultCode.DIRECTION_FAILED
    assert "TruncatedEigh" in run.result.message
    assert 1 <= run.result.time < 10
    assert np.all(np.isfinite(run.data.train_loss))
    # Between two saves it is found all the same, where it happened.
    rarely = gn.iterate(twice, mean_field(), flow, step_size=0.5, num_steps=10, save_every=10, throw=False)
    assert rarely.result == run.result
    assert list(rarely.data.step.values) == [0, run.result.time]
    np.testing.assert_allclose(rarely.data.train_loss[-1], run.data.train_loss[-1], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"step_size": 0.0}, "step_size = 0.0"),
        ({"step_size": -1.0}, "step_size = -1.0"),
        ({"step_size": float("inf")}, "step_size = inf"),
        ({"step_size": float("nan")}, "step_size = nan"),
        ({"num_steps": 0}, "num_steps = 0"),
        ({"save_every": 0}, "save_every = 0"),
        ({"stop": 1e-8}, "expected a stop rule"),
    ],
)
def test_bad_arguments_are_named(options, match):
    with pytest.raises(gn.ConfigError, match=match):
        linear_steps(**options)
