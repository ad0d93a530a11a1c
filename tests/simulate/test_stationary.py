"""Runs that stand still end, say so and say why; runs that only seem to stand still go on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import least_squares
from simulate.linear import Axes, Linear, flow_down
from simulate.products import fast_and_slow

import gnflow as gn
from gnflow import GradientNorm, RelativeLoss, ResultCode, Stationary, VelocityNorm
from gnflow.flows import AbstractFlow, Frozen, GaussNewtonFlow, GradientFlow
from gnflow.geometry.damping import Constant

X = np.random.default_rng(0).standard_normal((12, 3))
Y = np.sin(X[:, 0]) + X[:, 1]
TWICE = np.concatenate([X[:-1], X[:1]])
FLOWS = (GradientFlow(), GaussNewtonFlow(), GaussNewtonFlow(damping=Constant(0.0)))
NAMES = ("gradient", "gauss newton", "undamped")


def each_flow(*quick, of=NAMES):
    """Each flow is a program: `quick` ones run with the fast tests, so that every flow meets one of these."""
    named = zip(of, FLOWS, strict=False)
    return pytest.mark.parametrize(
        "flow", [pytest.param(flow, id=name, marks=() if name in quick else pytest.mark.slow) for name, flow in named]
    )


def network(init_scale=1.0, scale=1.0):
    model = gn.models.MeanFieldNetwork(
        input_dim=3, width=30, init_scale=init_scale, output_init_scale=init_scale, key=jax.random.key(0)
    )
    return jax.tree.map(lambda leaf: scale * leaf if isinstance(leaf, jax.Array) else leaf, model)


def run(problem, flow=FLOWS[0], model=None, **options):
    """One shape of problem and model: one program for each kind of flow."""
    return gn.simulate(problem, network() if model is None else model, flow, **options)


def assert_still(trajectory, steps):
    assert trajectory.result.code == ResultCode.STATIONARY
    assert not trajectory.result.failed
    assert trajectory.stats["num_steps"] < steps
    assert trajectory.result.time == trajectory.data.time.values[-1]
    assert f"training loss {float(trajectory.data.train_loss[-1]):.3e}" in trajectory.result.message
    assert RelativeLoss(1e-8).describe() in trajectory.result.message


@each_flow("gradient")
def test_conflicting_samples(flow):
    """Two targets at one input: the loss stops at what their mean costs, the floor and the infimum of the linearisation."""
    trajectory = run(gn.Problem(TWICE, Y), flow)
    assert_still(trajectory, 40)
    floor = 2 * ((Y[0] - Y[-1]) / 2) ** 2 / 24
    np.testing.assert_allclose(trajectory.data.train_loss[-1], floor, rtol=1e-4)
    message = trajectory.result.message
    assert f"1 input occurs more than once with different targets, which alone keeps the loss at {floor:.4g}" in message
    assert f"linearisation here is {floor:.4g}" in message
    assert "rank 11 of 12" in message


def test_a_sample_given_twice_is_no_obstacle():
    trajectory = run(gn.Problem(TWICE, np.concatenate([Y[:-1], Y[:1]])))
    assert trajectory.result.code == ResultCode.STOP_RULE_MET


def test_a_saddle_of_small_weights_is_left():
    """tau_0 = 1e-6: a velocity of 1e-12 at first, and then an escape."""
    problem, model = gn.Problem(X, Y), network(1e-6)
    gradient = jax.grad(lambda model: problem.loss.value(jax.vmap(model)(problem.x_train), problem.y_train))(model)
    assert 0 < max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient)) < 1e-6
    trajectory = run(problem, model=model, stop=RelativeLoss(1e-2))
    assert trajectory.result.code == ResultCode.STOP_RULE_MET
    assert trajectory.result.time > 20  # it does wait at the saddle, 1e6 = e^14 away


@each_flow("gradient")
def test_weights_that_are_all_zero_never_move(flow):
    trajectory = run(gn.Problem(X, Y), flow, network(scale=0.0))
    assert_still(trajectory, 1)
    assert trajectory.result.time == 0
    assert "the derivative of the outputs is zero in every trained weight" in trajectory.result.message


@pytest.fixture(scope="module")
def noisy():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 3))
    return gn.Problem(x, np.sin(x[:, 0]) + x[:, 1] + 0.3 * rng.standard_normal(40))


@each_flow("undamped")
def test_fewer_weights_than_noisy_targets(noisy, flow):
    """20 output weights, 40 targets: the end is the least-squares fit."""
    model = gn.models.MeanFieldNetwork(input_dim=3, width=20, key=jax.random.key(0))
    trajectory = gn.simulate(noisy, model, Frozen(flow, "output"))
    assert_still(trajectory, 100)
    features = np.asarray(jax.vmap(model.hidden_features)(noisy.x_train))
    fit = features @ np.linalg.lstsq(features, np.asarray(noisy.y_train), rcond=None)[0]
    least = float(np.mean((fit - noisy.y_train) ** 2) / 2)
    np.testing.assert_allclose(trajectory.data.train_loss[-1], least, rtol=1e-3)
    assert "P = 20 trained weights for NC = 40 outputs" in trajectory.result.message
    assert f"linearisation here is {least:.4g}" in trajectory.result.message


@each_flow("gauss newton", of=NAMES[:2])
def test_fewer_weights_than_noisy_targets_of_a_whole_network(flow):
    """P = 20 weights that all move: what limits low-rank solvers is the curvature that comes with the residual.

    The end is a minimum of the loss, which SciPy finds by going on from there.
    """
    rng = np.random.default_rng(2)
    x = rng.standard_normal((40, 3))
    problem = gn.Problem(x, np.sin(x[:, 0]) + x[:, 1] + 0.3 * rng.standard_normal(40))
    model = gn.models.MeanFieldNetwork(input_dim=3, width=4, key=jax.random.key(2))
    trajectory = gn.simulate(problem, model, flow)
    assert_still(trajectory, 100)
    assert trajectory.stats["solver"] == "exponential_rosenbrock"
    assert "20 weights" in trajectory.stats["solver_reason"]
    assert trajectory.stats["estimated_error"] < 0.05
    end, unravel = ravel_pytree(eqx.filter(trajectory.model, eqx.is_inexact_array))
    structure = eqx.filter(trajectory.model, eqx.is_inexact_array, inverse=True)

    @jax.jit
    def residuals(vector):
        return (jax.vmap(eqx.combine(unravel(vector), structure))(problem.x_train) - problem.y_train).reshape(-1)

    jacobian = jax.jit(jax.jacfwd(residuals))
    best = least_squares(residuals, end, jacobian, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    np.testing.assert_allclose(trajectory.data.train_loss[-1], best.cost / 40, rtol=1e-4)


def test_stop_none_runs_to_t1():
    trajectory = run(gn.Problem(TWICE, Y), t1=1e4, stop=None)
    assert trajectory.result.code == ResultCode.TIME_REACHED
    assert trajectory.settings["stop"] == ()


def test_a_run_ends_at_the_resolution_asked_for():
    """The loss above its floor falls with the square of the share of g that the weights can follow."""
    problem, floor = gn.Problem(TWICE, Y), 2 * ((Y[0] - Y[-1]) / 2) ** 2 / 24
    ends = [run(problem, stop=(RelativeLoss(1e-8), Stationary(share))) for share in (0.05, 1e-5)]
    assert [end.result.code for end in ends] == [ResultCode.STATIONARY] * 2
    above = [float(end.data.train_loss[-1]) / floor - 1 for end in ends]
    assert above[1] < above[0] < 0.05**2
    assert abs(above[1]) < 1e-9
    assert ends[0].result.time < ends[1].result.time


class Decaying(AbstractFlow):
    """w' = -grad L - rate w, a flow of the user's."""

    rate: float

    def velocity_and_diagnostics(self, time, weights, system):
        gradient = jax.grad(system.train_loss)(weights)
        return jax.tree.map(lambda g, w: -g - self.rate * w, gradient, weights), None


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_the_velocity_of_a_flow_with_weight_decay(tolerance):
    """w(t) = w_inf (1 - exp(-(1/2 + rate) t)), while the gradient tends to -rate w_inf."""
    stop = (VelocityNorm(tolerance), GradientNorm(1e-2))
    trajectory = flow_down(Axes(), flow=Decaying(0.5), stop=stop, rtol=1e-7)
    assert trajectory.result.code == ResultCode.STOP_RULE_MET
    assert trajectory.result.message.startswith(stop[0].describe())
    np.testing.assert_allclose(trajectory.result.time, np.log(2.5 / tolerance), rtol=1e-3)
    np.testing.assert_allclose(trajectory.model.w, np.array([1.5, 2.0]) * (1 - tolerance / 2.5), rtol=1e-4)


def test_a_flow_with_weight_decay_rests_where_its_velocity_is_rounding():
    """Not where the gradient, which is no multiple of its velocity, leaves nothing to follow."""
    trajectory = flow_down(Axes(), Linear.at([1.5, 2.0]), Decaying(0.5), rtol=1e-7)
    assert trajectory.result.code == ResultCode.STATIONARY
    assert trajectory.result.time == 0
    moving = flow_down(Axes(), Linear.at([1.5, 1.9]), Decaying(0.5), rtol=1e-7, t1=5.0)
    assert moving.result.code == ResultCode.TIME_REACHED


class Logarithmic(AbstractFlow):
    """w = log(1 + t) (1, 1): never at rest, and never at a target."""

    def velocity_and_diagnostics(self, time, weights, system):
        return jax.tree.map(lambda w: jnp.ones_like(w) / (1 + time), weights), None


def test_the_longest_flow_time_without_t1_is_a_failure():
    trajectory = flow_down(Axes(), flow=Logarithmic(), throw=False)
    assert trajectory.result.code == ResultCode.HORIZON_REACHED
    assert trajectory.result.failed
    assert "no stop rule met" in trajectory.result.message
    np.testing.assert_allclose(trajectory.model.w, np.log(trajectory.result.time), rtol=1e-2)
    assert flow_down(Axes(), flow=Logarithmic(), t1=10.0).result.code == ResultCode.TIME_REACHED


def test_standing_still_in_steps():
    """Given by name, since steps are counted by the user; nothing is added to the rules of `iterate`."""
    axes = Axes(scales=(1.0, 0.0), targets=(3.0, 4.0))
    options = {"step_size": 1.0, "num_steps": 60}
    stop = (RelativeLoss(1e-8), Stationary())
    run = gn.iterate(axes.problem, Linear.at([0.0, 0.0]), GradientFlow(1.0), stop=stop, **options)
    assert run.result.code == ResultCode.STATIONARY
    assert 5 < run.result.time < 30
    np.testing.assert_allclose(run.data.train_loss[-1], 4, rtol=1e-5)
    on = gn.iterate(axes.problem, Linear.at([0.0, 0.0]), GradientFlow(1.0), stop=stop[0], **options)
    assert on.result.code == ResultCode.NUM_STEPS_REACHED


@pytest.mark.parametrize("resolution", [0.0, -1.0, float("inf"), 1.0])
def test_a_resolution_must_be_positive(resolution):
    with pytest.raises(gn.ConfigError, match="Stationary"):
        Stationary(resolution)


@pytest.mark.parametrize("small", [1e-6, 1e-8, 1e-10])
def test_a_saddle_below_the_modes_is_left(small):
    """The second mode is 1e-16 of the first and less; a column of 100 beside one of 1 is learnt at once."""
    trajectory = gn.simulate(*fast_and_slow(small), GradientFlow(), throw=False)
    assert trajectory.result.code in (
        ResultCode.STOP_RULE_MET,
        ResultCode.INACCURATE,
    )  # it may say that the time is not known
    np.testing.assert_allclose(trajectory.model.u[1] * trajectory.model.v[1], 1.0, rtol=1e-3)


class Waiting(AbstractFlow):
    """Gradient flow that pauses until flow time 5."""

    def velocity_and_diagnostics(self, time, weights, system):
        gradient = jax.grad(system.train_loss)(weights)
        return jax.tree.map(lambda leaf: -leaf * jnp.clip(time - 5.0, 0.0, 1.0), gradient), None


def test_a_pause_is_no_standing_still():
    trajectory = flow_down(flow=Waiting(), model=Linear.at([0.0, 0.0]), t1=15.0, stop=RelativeLoss(0.5))
    assert trajectory.result.code == ResultCode.STOP_RULE_MET
    assert 5.0 < trajectory.result.time < 15.0


@pytest.mark.slow
def test_two_rules_of_the_same_kind():
    trajectory = flow_down(Axes(scales=(1.0, 0.0)), stop=(Stationary(), Stationary(1e-2)))
    assert trajectory.result.code == ResultCode.STATIONARY
