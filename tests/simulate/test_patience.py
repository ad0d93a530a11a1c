"""Rules with a history: how they count, what they wait for, and that anyone can write one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulate.linear import Axes, Linear, flow_down
from simulate.products import fast_and_slow

import gnflow as gn
from gnflow import AbstractStopRule, LossPlateau, RelativeLoss, ResultCode, TestLoss
from gnflow.flows import Frozen, GradientFlow
from gnflow.simulate import stop_kinds


class StepLimit(AbstractStopRule):
    """Ends the run after so many accepted steps; remembers them and the time of the last."""

    bisected = False
    limit: int

    def prepare(self, start):
        return jnp.zeros((), dtype=int)

    def update(self, snapshot, memory):
        return memory + 1

    def margin(self, snapshot, memory):
        return (self.limit - memory).astype(float)

    def describe(self):
        return "that many steps were accepted"


class Clock(AbstractStopRule):
    """Looks at the time."""

    limit: float

    def margin(self, snapshot, memory):
        return jnp.log(self.limit) - jnp.log(jnp.maximum(snapshot.time, 1e-300))

    def describe(self):
        return "the clock struck"


RULES = (RelativeLoss(1e-200), Clock(1e6), StepLimit(100))


def with_rules(clock=RULES[1], steps=RULES[2], axes=None, **options):
    return flow_down(Axes(scales=(1.0, 30.0)) if axes is None else axes, stop=(RULES[0], clock, steps), **options)


@pytest.mark.parametrize("limit", [1, 40])
def test_a_rule_with_a_history_sees_each_accepted_step_once(limit):
    """Tsit5 on a stiff flow rejects steps, which do not count."""
    trajectory = with_rules(steps=StepLimit(limit), solver="tsit5")
    assert trajectory.result.code == ResultCode.STOP_RULE_MET
    assert trajectory.result.message.startswith("that many steps were accepted")
    assert trajectory.stats["num_accepted_steps"] == limit
    assert trajectory.stats["num_rejected_steps"] > 0 or limit == 1
    assert trajectory.data.time.values[-1] == trajectory.result.time > 0
    assert np.all(np.isfinite(trajectory.data.train_loss))


def test_of_a_step_that_meets_two_rules_the_earlier_time_counts():
    """A rule within the step is met before one at its end."""
    first = with_rules(steps=StepLimit(1), solver="tsit5").result.time
    trajectory = with_rules(Clock(first / 2), StepLimit(1), solver="tsit5")
    assert trajectory.result.message.startswith("the clock struck")
    np.testing.assert_allclose(trajectory.result.time, first / 2, rtol=1e-5)


def test_rules_see_the_time():
    trajectory = with_rules(Clock(0.7), solver="tsit5")
    np.testing.assert_allclose(trajectory.result.time, 0.7, rtol=1e-5)


@pytest.mark.parametrize("batch", [{}, {"batch_size": 1, "key": 0}], ids=["all samples", "batches"])
def test_in_steps_a_history_is_of_the_saved_steps(batch):
    options = {"step_size": 0.1, "num_steps": 20, "save_every": 2, **batch}
    run = gn.iterate(
        Axes().problem, Linear.at([0.0, 0.0]), GradientFlow(1.0), stop=(Clock(1e6), StepLimit(3)), **options
    )
    assert run.result.code == ResultCode.STOP_RULE_MET
    # A run in batches looks at its start as well.
    assert run.result.time == (4 if batch else 6)


def test_a_plateau_of_the_training_loss():
    """Rates 1 and 1e-6: the loss rests at that of the slow axis from t = 10 to 1e5."""
    axes = Axes(scales=(1.0, 1e-3), targets=(3.0, 1.0))
    time = flow_down(axes, stop=(RelativeLoss(1e-9), LossPlateau(1.0, 0.01))).result
    assert time.code == ResultCode.STOP_RULE_MET
    assert time.message.startswith(LossPlateau(1.0, 0.01).describe())
    assert axes.loss(time.time) > 0.99 * axes.loss(time.time / 10)
    assert 30 < time.time < 2e3
    later = flow_down(axes, stop=(RelativeLoss(1e-9), LossPlateau(6.0, 0.01))).result
    assert later.code == ResultCode.STOP_RULE_MET
    assert later.message.startswith(RelativeLoss(1e-9).describe())


@pytest.mark.slow
def test_a_plateau_from_small_weights():
    """The first rate says 1e12 units of flow time; the first column is learnt in 0.3, the second not before 20."""
    stop = (RelativeLoss(1e-9), LossPlateau(0.5, 0.01))
    run = gn.simulate(*fast_and_slow(1e-8), GradientFlow(1.0), stop=stop)
    assert run.result.message.startswith(LossPlateau(0.5, 0.01).describe())
    assert 0.5 < run.result.time < 5
    np.testing.assert_allclose(run.data.train_loss[-1], 0.5, rtol=1e-3)


@pytest.fixture(scope="module")
def overfitting():
    """Random features and noisy targets: the test loss falls and rises again."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 3))
    y = x[:, 0] + 1.0 * rng.standard_normal(20)
    test = rng.standard_normal((50, 3))
    problem = gn.Problem(x, y, test, test[:, 0])
    model = gn.models.MeanFieldNetwork(input_dim=3, width=40, key=jax.random.key(0))
    return problem, model, Frozen(GradientFlow(), "output")


@pytest.mark.parametrize("decades", [0.3, 1.0])
def test_early_stopping(overfitting, decades):
    trajectory = gn.simulate(*overfitting, stop=(RelativeLoss(1e-8), TestLoss(decades)))
    assert trajectory.result.message.startswith(TestLoss(decades).describe())
    time, loss = trajectory.data.time.values, trajectory.data.test_loss.values
    waited = np.log10(time[-1] / time[np.argmin(loss)])
    assert decades - 0.2 < waited < decades + 1.0
    assert loss[-1] > loss.min()


def test_early_stopping_in_steps(overfitting):
    stop = TestLoss(0.5)
    run = gn.iterate(*overfitting, step_size=2.0, num_steps=3000, save_every=10, stop=stop)
    assert run.result.code == ResultCode.STOP_RULE_MET
    step, loss = run.data.step.values, run.data.test_loss.values
    lowest = step[np.argmin(loss)]
    assert 10**0.5 * lowest <= step[-1] <= 10**0.5 * lowest + 10


def test_early_stopping_needs_test_data():
    with pytest.raises(gn.ConfigError, match="needs test data"):
        flow_down(Axes(), stop=TestLoss(0.5))
    assert not TestLoss.__test__


def test_early_stopping_by_validation_data(overfitting):
    """The same samples under another name: the same steps, until the same end."""
    problem, model, flow = overfitting
    data = {"x_validation": problem.x_test, "y_validation": problem.y_test}
    other = gn.Problem(problem.x_train, problem.y_train, -problem.x_test, problem.y_test, **data)
    settings = {"step_size": 2.0, "num_steps": 3000, "save_every": 10}
    by_test = gn.iterate(problem, model, flow, **settings, stop=TestLoss(0.5))
    run = gn.iterate(other, model, flow, **settings, stop=gn.ValidationLoss(0.5))
    assert run.result.time == by_test.result.time
    assert "the validation loss had no new minimum for 0.5 decades" in run.result.message
    np.testing.assert_allclose(run.data.validation_loss, by_test.data.test_loss, rtol=1e-10)
    with pytest.raises(gn.ConfigError, match=r"ValidationLoss needs validation data.*x_validation"):
        gn.iterate(problem, model, flow, **settings, stop=gn.ValidationLoss(0.5))


@pytest.mark.parametrize("rule", [LossPlateau, TestLoss, gn.VelocityNorm])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_numbers_must_be_positive(rule, value):
    with pytest.raises(gn.ConfigError, match=rule.__name__):
        rule(value)


@pytest.mark.parametrize("kind", stop_kinds)
def test_every_kind_takes_its_first_number(kind):
    rule = stop_kinds[kind](0.25)
    assert isinstance(rule, AbstractStopRule)
    assert "0.25" in rule.describe() or kind == "stationary"
