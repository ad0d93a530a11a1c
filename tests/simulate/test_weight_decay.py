"""Runs with weight decay: ridge regression, weights that only decay, what never rises, where they rest, what is refused."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from simulate.linear import Axes, Linear, flow_down
from simulate.products import Products

import gnflow as gn
from gnflow import ResultCode
from gnflow.flows import AbstractFlow, Frozen, GaussNewtonFlow, GradientFlow, WeightDecay
from gnflow.geometry.damping import Constant

MOBILITY, RATE = 2.0, 0.1


class Ridge:
    """Random features whose gradient flow with weight decay is known at all times."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.problem = gn.Problem(rng.normal(size=(6, 2)), rng.normal(size=6))
        self.model = gn.models.RandomFeatures(2, 10, 1, "tanh", output_init_scale=1.0, key=jr.key(0))
        self.flow = WeightDecay(GradientFlow(MOBILITY), RATE)
        system = self.flow.system(self.problem, self.model)
        start, unravel = ravel_pytree(system.weights(self.model))
        features = np.asarray(jax.jacfwd(lambda w: system.outputs(unravel(w)).reshape(-1))(start))
        targets = np.asarray(self.problem.y_train).reshape(-1)
        matrix = MOBILITY * features.T @ features / 6 + RATE * np.eye(start.size)
        self.start = np.asarray(start)
        self.limit = np.linalg.solve(
            features.T @ features + 6 * RATE / MOBILITY * np.eye(start.size), features.T @ targets
        )
        self.rates, self.modes = np.linalg.eigh(matrix)

    def weights(self, time):
        return self.limit + self.modes @ (np.exp(-self.rates * time) * (self.modes.T @ (self.start - self.limit)))

    def run(self, **options):
        return gn.simulate(self.problem, self.model, self.flow, **options)


RIDGE = Ridge()


def weights_of(trajectory):
    system = trajectory.flow.system(trajectory.problem, trajectory.model)
    return np.asarray(ravel_pytree(system.weights(trajectory.model))[0])


@pytest.mark.parametrize(
    ("solver", "rtol", "tolerance"),
    [
        ("exponential", 1e-3, 1e-12),
        ("exponential_rosenbrock", 1e-3, 1e-11),
        ("kvaerno5", 1e-6, 1e-5),
        ("stabilised", 1e-5, 1e-4),
        ("tsit5", 1e-6, 1e-5),
        ("dopri8", 1e-7, 1e-6),
    ],
)
def test_every_solver_finds_ridge_regression(solver, rtol, tolerance):
    for time in (1.0, 25.0):
        found = weights_of(RIDGE.run(t1=time, stop=None, solver=solver, rtol=rtol))
        np.testing.assert_allclose(found, RIDGE.weights(time), atol=tolerance)


def test_auto_rests_at_ridge_regression():
    trajectory = RIDGE.run(stop=(gn.RelativeLoss(1e-8), gn.Stationary(1e-6)))
    assert trajectory.result.code == ResultCode.STATIONARY
    assert "weight decay balances" in trajectory.result.message
    assert trajectory.stats["solver"] == "exponential"
    np.testing.assert_allclose(weights_of(trajectory), RIDGE.limit, atol=1e-5)
    assert trajectory.stats["estimated_error"] < 1e-10


@pytest.mark.parametrize("solver", ["exponential", "tsit5", "stabilised"])
def test_weights_that_only_decay(solver):
    """Without a gradient, w = exp(-rate t) w_0, each group at its own."""
    flow = WeightDecay(GradientFlow(0.0), {"hidden": 0.3, "output_weight": 1.5})
    model = mean_field()
    run = gn.simulate(make_problem(), model, flow, t1=2.0, stop=None, solver=solver, rtol=1e-6)
    for name, rate in (("hidden_weight", 0.3), ("hidden_bias", 0.3), ("output_weight", 1.5)):
        expected = getattr(model, name) * np.exp(-2 * rate)
        np.testing.assert_allclose(getattr(run.model, name), expected, atol=5e-5, err_msg=name)


@pytest.mark.slow
def test_weights_that_vanish_are_told():
    key = jr.key(0)
    problem = gn.problems.teacher_student(12, 20, input_dim=3, teacher_width=2, key=key)
    model = gn.models.MeanFieldNetwork(input_dim=3, width=15, init_scale=1.0, key=key)
    flow = WeightDecay(GradientFlow(1.0), 0.05)
    run = gn.simulate(problem, model, flow, stop=gn.RelativeLoss(1e-8), throw=False)
    assert run.result.code == ResultCode.HORIZON_REACHED
    assert "the weights vanish, as their decay is stronger than what drives them; give t1" in run.result.message


def test_weights_that_are_not_named_do_not_decay():
    model = mean_field()
    run = gn.simulate(
        make_problem(), model, WeightDecay(GradientFlow(0.0), {"output": 1.0}), t1=1.0, stop=None, solver="exponential"
    )
    np.testing.assert_array_equal(run.model.hidden_weight, model.hidden_weight)
    np.testing.assert_allclose(run.model.output_weight, model.output_weight * np.exp(-1.0), rtol=1e-4)


@pytest.mark.parametrize("solver", ["exponential", "kvaerno5"])
def test_a_nonlinear_network_by_group(solver):
    """Against SciPy on the weights, with gradients by reverse mode."""
    problem, model = make_problem(), mean_field()
    flow = WeightDecay(GradientFlow(2.0), {"hidden_weight": 0.4, "output": 0.2})
    system = flow.system(problem, model)
    start, unravel = ravel_pytree(system.weights(model))
    rates = np.asarray(ravel_pytree(flow.decay(system.weights(model), system))[0])
    sizes = [leaf.size for leaf in jax.tree.leaves(system.weights(model))]
    slope = jax.jit(jax.grad(lambda vector: system.train_loss(unravel(vector))))
    full = np.repeat(rates, sizes)
    found = solve_ivp(
        lambda _, w: -2 * np.asarray(slope(w)) - full * w, (0, 3.0), np.asarray(start), "DOP853", rtol=1e-11, atol=1e-13
    )
    run = gn.simulate(problem, model, flow, t1=3.0, stop=None, solver=solver, rtol=1e-6)
    np.testing.assert_allclose(weights_of(run), found.y[:, -1], atol=2e-5)


def objective(flow, problem, model):
    system = flow.system(problem, model)
    weights = system.weights(model)
    return float(system.train_loss(weights) + flow.penalty(weights, system))


def test_the_objective_of_gradient_flow_falls_while_the_loss_rises():
    """From ridge regression without a penalty, which fits, the loss can but rise; L + rate/(2m) |w|^2 falls."""
    fitted = gn.simulate(RIDGE.problem, RIDGE.model, GradientFlow(MOBILITY), stop=gn.RelativeLoss(1e-12)).model
    run = gn.simulate(RIDGE.problem, fitted, RIDGE.flow, stop=gn.Stationary(1e-6))
    assert run.result.code == ResultCode.STATIONARY
    assert np.all(np.diff(run.data.train_loss) > -1e-12)
    assert run.data.train_loss[-1] > 0.01
    np.testing.assert_allclose(weights_of(run), RIDGE.limit, atol=1e-5)
    assert objective(RIDGE.flow, RIDGE.problem, run.model) < objective(RIDGE.flow, RIDGE.problem, fitted)
    weights = weights_of(run)
    expected = float(run.data.train_loss[-1]) + RATE / (2 * MOBILITY) * weights @ weights
    np.testing.assert_allclose(objective(RIDGE.flow, RIDGE.problem, run.model), expected)


class Rising(AbstractFlow):
    """Ascent that claims to be the flow of -grad L - rate w: each step of it is an error."""

    inner: WeightDecay

    def velocity_and_diagnostics(self, time, weights, system):
        velocity, how = self.inner.velocity_and_diagnostics(time, weights, system)
        return jax.tree.map(lambda leaf: -leaf, velocity), how

    def decay(self, weights, system):
        return self.inner.decay(weights, system)

    def penalty(self, weights, system):
        return self.inner.penalty(weights, system)

    def never_ascends(self, system):
        return self.inner.never_ascends(system)


def test_a_step_that_raises_the_objective_is_in_error():
    options = {"t1": 0.5, "stop": None, "solver": "tsit5", "throw": False}
    run = gn.simulate(RIDGE.problem, RIDGE.model, Rising(RIDGE.flow), **options)
    assert run.result.code == ResultCode.STEP_SIZE_TOO_SMALL
    assert run.result.time < 0.05
    preconditioned = WeightDecay(GaussNewtonFlow(damping=Constant(0.1)), RATE)  # which claims nothing
    assert (
        gn.simulate(RIDGE.problem, RIDGE.model, Rising(preconditioned), **options).result.code
        == ResultCode.TIME_REACHED
    )


def test_what_the_flows_say_of_themselves():
    problem, model = make_problem(), mean_field()
    flows = [
        (WeightDecay(GradientFlow(), 0.1), True),
        (WeightDecay(WeightDecay(GradientFlow(3.0), 0.1), {"hidden": 1.0}), True),
        (WeightDecay(GradientFlow(0.0), 0.1), False),
        (WeightDecay(GaussNewtonFlow(damping=Constant(0.1)), 0.1), False),
    ]
    for flow, falls in flows:
        system = flow.system(problem, model)
        assert flow.never_ascends(system) == falls
        assert flow.gain(system) is None
        assert not flow.rests_with_gradient
        assert flow.has_real_spectrum(system) == flow.flow.has_real_spectrum(system)
        assert flow.linearised is not None
    preconditioned = WeightDecay(GaussNewtonFlow(), 0.1)
    system = preconditioned.system(problem, model)
    assert preconditioned.penalty(system.weights(model), system) is None
    twice = WeightDecay(WeightDecay(GradientFlow(3.0), 0.1), {"hidden": 1.0})
    weights = system.weights(model)
    expected = 0.1 * sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(weights))
    expected += float(jnp.sum(weights.hidden_weight**2) + jnp.sum(weights.hidden_bias**2))
    np.testing.assert_allclose(twice.penalty(weights, system), expected / 6)


def test_frozen_and_decay_may_wrap_each_other():
    problem, model = make_problem(), mean_field()
    one = Frozen(WeightDecay(GradientFlow(), 0.2), "output")
    other = WeightDecay(Frozen(GradientFlow(), "output"), 0.2)
    assert one.trainable == other.trainable == "output"
    assert one.dynamics == other.dynamics
    runs = [gn.simulate(problem, model, flow, t1=1.0, stop=None) for flow in (one, other)]
    for run in runs:
        np.testing.assert_array_equal(run.model.hidden_weight, model.hidden_weight)
    np.testing.assert_array_equal(runs[0].model.output_weight, runs[1].model.output_weight)
    np.testing.assert_array_equal(runs[0].data.train_loss, runs[1].data.train_loss)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightDecay(GradientFlow(), -0.1), "rate = -0.1; expected a finite number of at least 0"),
        (lambda: WeightDecay(GradientFlow(), float("nan")), "rate = nan"),
        (lambda: WeightDecay(GradientFlow(), {}), r"rate = \{\}; expected a number, or one for each group"),
        (lambda: WeightDecay(GradientFlow(), {1: 0.1}), r"rate = \{1: 0.1\}"),
        (lambda: WeightDecay(GradientFlow(), {"hidden": "a"}), r"rate\['hidden'\] = 'a'"),
        (lambda: WeightDecay(GradientFlow, 0.1), "flow of WeightDecay is the class GradientFlow"),
    ],
)
def test_rates_that_are_none(make, message, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    with pytest.raises(gn.ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (WeightDecay(GradientFlow(), {"hiden": 0.1}), "no weights called 'hiden' that move; did you mean 'hidden'"),
        (WeightDecay(Frozen(GradientFlow(), "output"), {"hidden": 0.1}), "no weights called 'hidden' that move"),
        (
            Frozen(WeightDecay(GradientFlow(), {"hidden_bias": 0.1}), "output"),
            "no weights called 'hidden_bias' that move",
        ),
        (WeightDecay(GradientFlow(), {"hidden": 0.1, "hidden_bias": 0.2}), "two numbers.*'hidden'.*'hidden_bias'"),
    ],
)
def test_names_that_are_none_are_refused_before_anything_is_computed(flow, message):
    for run in (
        lambda: gn.simulate(make_problem(), mean_field(), flow),
        lambda: gn.iterate(make_problem(), mean_field(), flow, step_size=0.1, num_steps=2),
    ):
        with pytest.raises(gn.ModelError, match=message):
            run()


def test_steps_of_gradient_descent_with_decay():
    """w <- (1 - h rate) w - h m grad L."""
    options = {"step_size": 0.1, "num_steps": 30}
    run = gn.iterate(RIDGE.problem, RIDGE.model, RIDGE.flow, **options)
    factors = (1 - 0.1 * RIDGE.rates) ** 30
    expected = RIDGE.limit + RIDGE.modes @ (factors * (RIDGE.modes.T @ (RIDGE.start - RIDGE.limit)))
    np.testing.assert_allclose(weights_of(run), expected, atol=1e-12)
    still = gn.iterate(
        RIDGE.problem, RIDGE.model, RIDGE.flow, step_size=1.0, num_steps=400, stop=gn.Stationary(1e-5), save_every=5
    )
    assert still.result.code == ResultCode.STATIONARY
    np.testing.assert_allclose(weights_of(still), RIDGE.limit, atol=1e-4)


def test_batches_decay_as_well():
    flow = WeightDecay(GradientFlow(0.0), 0.5)
    run = gn.iterate(RIDGE.problem, RIDGE.model, flow, step_size=0.1, num_epochs=2, batch_size=3, key=jax.random.key(0))
    np.testing.assert_allclose(weights_of(run), RIDGE.start * 0.95**4, rtol=1e-12)


def test_a_run_on_the_way_to_its_rest_does_not_stand_still():
    """The other weight has found its rest: the balance is one of all weights."""
    flow = WeightDecay(GradientFlow(1.0), 0.5)
    moving = flow_down(Axes(), Linear.at([1.5, 1.9]), flow, t1=0.5)
    assert moving.result.code == ResultCode.TIME_REACHED
    still = flow_down(Axes(), Linear.at([1.5, 2.0]), flow)
    assert still.result.code == ResultCode.STATIONARY
    assert still.result.time == 0


def test_weights_without_a_rate_have_to_rest_too():
    """The second sample is fitted slowly, by a weight that does not decay, beside one that has found its balance: neither
    is the run over before, nor may a long exponential step pass the slow one by."""
    axes, start = Axes(scales=(1.0, 1e-2), targets=(3.0, 0.04)), [1.5, 0.0]

    class Half(WeightDecay):
        def decay(self, weights, system):
            return jax.tree.map(lambda leaf: jnp.asarray([0.5, 0.0]), weights)

        def velocity_and_diagnostics(self, time, weights, system):
            velocity, how = self.flow.velocity_and_diagnostics(time, weights, system)
            return jax.tree.map(lambda v, d, w: v - d * w, velocity, self.decay(weights, system), weights), how

    run = flow_down(axes, Linear.at(start), Half(GradientFlow(1.0), 0.5))
    assert run.result.code == ResultCode.STATIONARY
    np.testing.assert_allclose(run.model.w, [1.5, 4.0], rtol=2e-2)
    run = flow_down(axes, Linear.at(start), Half(GradientFlow(1.0), 0.5), t1=2e4, stop=None, solver="exponential")
    np.testing.assert_allclose(run.model.w, [1.5, 4 * -np.expm1(-1.0)], rtol=1e-2)


@pytest.mark.slow
def test_the_rest_of_a_network_is_the_minimum_of_its_objective():
    problem, model = make_problem(num_outputs=1), mean_field(num_outputs=1)
    flow = WeightDecay(GradientFlow(), 0.05)
    run = gn.simulate(problem, model, flow, stop=(gn.RelativeLoss(1e-8), gn.Stationary(1e-6)))
    assert run.result.code == ResultCode.STATIONARY
    system = flow.system(problem, model)
    end, unravel = ravel_pytree(system.weights(run.model))

    def value(vector):
        return system.train_loss(unravel(vector)) + flow.penalty(unravel(vector), system)

    found = minimize(jax.jit(jax.value_and_grad(value)), np.asarray(end), jac=True, method="BFGS", tol=1e-12)
    np.testing.assert_allclose(value(end), found.fun, rtol=1e-6)


def test_another_rate_is_another_run(tmp_path):
    """To a folder of checkpoints; to the compiled programs it is not."""
    options = {"t1": 1.0, "stop": None, "checkpoint": tmp_path / "kept"}
    first = RIDGE.run(**options)
    again = RIDGE.run(**options)
    np.testing.assert_array_equal(weights_of(first), weights_of(again))
    other = WeightDecay(GradientFlow(MOBILITY), 2 * RATE)
    with pytest.raises(gn.RunFolderError, match="flow"):
        gn.simulate(RIDGE.problem, RIDGE.model, other, **options)


def test_an_optimiser_sees_the_decay_as_gradient():
    run = gn.iterate(RIDGE.problem, RIDGE.model, RIDGE.flow, optimiser=gn.optimisers.SGD(0.1), num_steps=30)
    plain = gn.iterate(RIDGE.problem, RIDGE.model, RIDGE.flow, step_size=0.1, num_steps=30)
    np.testing.assert_allclose(weights_of(run), weights_of(plain), rtol=1e-12)


def test_a_saddle_beside_weights_at_rest_is_left():
    """(u_k v_k - 2)^2/4 with decay: u_k^2 = 2 - 2 rate at rest. The second pair is 1e-6 and grows, the first is there."""
    problem = gn.Problem(np.eye(2), np.array([2.0, 2.0]))
    rest = np.sqrt(2 - 2 * 0.1)
    model = Products(jnp.asarray([rest, 1e-6]), jnp.asarray([rest, 1e-6]))
    run = gn.simulate(
        problem, model, WeightDecay(GradientFlow(1.0), 0.1), stop=(gn.RelativeLoss(1e-8), gn.Stationary(1e-5))
    )
    assert run.result.code == ResultCode.STATIONARY
    np.testing.assert_allclose(run.model.u, [rest, rest], rtol=1e-4)
    np.testing.assert_allclose(run.model.v, [rest, rest], rtol=1e-4)
