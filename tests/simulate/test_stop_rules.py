"""Every way to end a run: where it ends, what it is called, and what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulate.linear import Axes, Linear, flow_down

import gnflow as gn
from gnflow import AbstractStopRule, GradientNorm, Movement, RelativeLoss, ResultCode
from gnflow.geometry import Snapshot, System
from gnflow.simulate._integrate import Loop
from gnflow.simulate._watch import _until_zero


class LargestWeight(AbstractStopRule):
    """A rule of the user's."""

    limit: float

    def margin(self, snapshot, memory):
        return self.limit - jnp.max(snapshot.weights.w)

    def describe(self):
        return "the largest weight reached the limit"


NEVER = (RelativeLoss(1e-200), GradientNorm(1e-200), Movement(1e6), LargestWeight(1e6))
AXES = Axes()  # ||y|| = 5: residuals 5 exp(-t/2), L = exp(-t) L_0, gradient norm 2.5 exp(-t/2)


def with_rules(loss=NEVER[0], gradient=NEVER[1], movement=NEVER[2], largest=NEVER[3], **options):
    """All rules in every run: one compiled program."""
    return flow_down(AXES, stop=(loss, gradient, movement, largest), **options)


def assert_complete(trajectory, end):
    """Rows from 0 to the end, all finite, and no more."""
    time = trajectory.data.time.values
    assert time[0] == 0
    assert np.all(np.diff(time) > 0)
    assert time[-1] == trajectory.result.time
    np.testing.assert_allclose(time[-1], end, rtol=1e-5)
    assert len(time) > 5
    assert np.all(np.isfinite(trajectory.data.train_loss))
    np.testing.assert_allclose(trajectory.data.train_loss, [AXES.loss(t) for t in time], rtol=2e-3)
    np.testing.assert_allclose(trajectory.model.w, AXES.weights(end), rtol=1e-4)


@pytest.mark.parametrize("tolerance", [0.5, 1e-4, 1e-9])
def test_relative_loss(tolerance):
    trajectory = with_rules(loss=RelativeLoss(tolerance), rtol=1e-7)
    assert trajectory.result.code == ResultCode.STOP_RULE_MET
    assert not trajectory.result.failed
    assert "training loss" in trajectory.result.message
    assert f"{tolerance:.3g}" in trajectory.result.message
    assert_complete(trajectory, -np.log(tolerance))
    loss = trajectory.data.train_loss.values
    np.testing.assert_allclose(loss[-1] / loss[0], tolerance, rtol=1e-5)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-30])
def test_the_last_step_ends_soon_behind_its_target(tolerance, monkeypatch):
    """Steps are exact here and grow; far behind a target, errors beside the residual say nothing of the run."""
    ends, ended = [], Loop.ended

    def watched(loop, interrupted):
        ends.append(loop.standing.time)
        return ended(loop, interrupted)

    monkeypatch.setattr(Loop, "ended", watched)
    found = with_rules(loss=RelativeLoss(tolerance), solver="exponential", saveat=[1.0])
    expected = -np.log(tolerance)
    assert float(found.data.time[-1]) == pytest.approx(expected, rel=2e-3)
    assert 0.99 * expected <= ends[-1] < 1.21 * expected
    assert found.stats["num_steps"] < 20


def test_when_a_margin_is_used_up():
    """In lengths of the last step; never where it did not fall, or where nothing was before."""
    assert float(_until_zero(jnp.asarray(3.0), jnp.asarray(2.0))) == 2.0
    for before, now in ((2.0, 2.0), (2.0, 3.0), (np.inf, 1.0), (np.nan, 1.0)):
        assert float(_until_zero(jnp.asarray(before), jnp.asarray(now))) == np.inf


def test_a_relative_loss_is_counted_from_the_infimum():
    """Of soft labels, the mean of their entropies."""
    targets = np.asarray([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    inputs = np.asarray([[1.0, -1.0], [0.5, 2.0]])
    problem = gn.Problem(inputs, targets, loss=gn.losses.SoftmaxCrossEntropy())
    model = gn.models.MLP(2, 10, 1, 3, key=jax.random.key(0))
    system = System(problem, model)
    first = system.weights(model)
    second = jax.tree.map(lambda leaf: 0.9 * leaf, first)
    start, later = (Snapshot(jnp.zeros(()), weights, system, lambda: (None, None)) for weights in (first, second))
    infimum = -np.mean(np.sum(targets * np.log(targets), axis=1))
    rule = RelativeLoss(0.3)
    margin = float(rule.margin(later, rule.prepare(start)))
    excess = [float(system.train_loss(weights)) - infimum for weights in (first, second)]
    assert abs(excess[1] / excess[0] - 1) > 0.01
    assert margin == pytest.approx(np.log(excess[1] / excess[0] / 0.3), rel=1e-9)


@pytest.mark.parametrize("tolerance", [1.0, 1e-3])
def test_gradient_norm(tolerance):
    trajectory = with_rules(gradient=GradientNorm(tolerance), rtol=1e-7)
    assert trajectory.result.code == ResultCode.STOP_RULE_MET
    assert "gradient norm" in trajectory.result.message
    assert_complete(trajectory, 2 * np.log(2.5 / tolerance))
    gradient = (np.asarray(trajectory.model.w) - AXES.targets) / 2
    np.testing.assert_allclose(np.linalg.norm(gradient), tolerance, rtol=1e-5)


@pytest.mark.parametrize("tolerance", [0.5, 4.9])
def test_movement_from_zero_is_absolute(tolerance):
    trajectory = with_rules(movement=Movement(tolerance), rtol=1e-7)
    assert "moved" in trajectory.result.message
    assert_complete(trajectory, -2 * np.log(1 - tolerance / 5))
    np.testing.assert_allclose(np.linalg.norm(trajectory.model.w), tolerance, rtol=1e-5)


def test_movement_is_relative_to_the_first_norm():
    trajectory = with_rules(movement=Movement(0.7), model=Linear.at([0.0, 2.0]), rtol=1e-7)
    moved = np.linalg.norm(np.asarray(trajectory.model.w) - [0, 2])
    np.testing.assert_allclose(moved, 0.7 * 2, rtol=1e-5)


@pytest.mark.parametrize("first", ["loss", "gradient", "movement"])
def test_the_first_rule_met_ends_the_run_and_is_named(first):
    """Met at t = 2 ln 2 - 0.01 and at t = 2 ln 2, often within the same step."""
    time = 2 * np.log(2)
    late = {"loss": RelativeLoss(0.25), "gradient": GradientNorm(1.25), "movement": Movement(2.5)}
    early = {
        "loss": RelativeLoss(0.25 * np.exp(0.01)),
        "gradient": GradientNorm(1.25 * np.exp(0.005)),
        "movement": Movement(5 * (1 - 0.5 * np.exp(0.005))),
    }
    trajectory = with_rules(**(late | {first: early[first]}), rtol=1e-7)
    np.testing.assert_allclose(trajectory.result.time, time - 0.01, rtol=1e-4)
    assert trajectory.result.message.startswith(early[first].describe())


@pytest.mark.parametrize(
    "rules",
    [{"loss": RelativeLoss(1.0)}, {"gradient": GradientNorm(2.5 * (1 + 1e-12))}, {"gradient": GradientNorm(7.0)}],
    ids=["loss", "gradient at its value", "gradient"],
)
def test_a_rule_met_at_the_start_ends_the_run_there(rules):
    trajectory = with_rules(**rules)
    assert trajectory.result.code == ResultCode.STOP_RULE_MET_AT_START
    assert not trajectory.result.failed
    assert trajectory.result.time == 0
    assert trajectory.data.time.values.tolist() == [0.0]
    np.testing.assert_allclose(trajectory.data.train_loss, [25 / 4], rtol=1e-14)
    assert trajectory.stats["num_steps"] == 0
    np.testing.assert_array_equal(trajectory.model.w, [0, 0])


def test_a_start_without_any_loss_meets_the_relative_loss():
    trajectory = with_rules(model=Linear.at(AXES.weights(np.inf)))
    assert trajectory.result.code == ResultCode.STOP_RULE_MET_AT_START
    assert trajectory.data.sizes["time"] == 1


def test_of_two_rules_met_at_the_start_the_first_given_is_named():
    trajectory = with_rules(loss=RelativeLoss(1.0), gradient=GradientNorm(7.0))
    assert trajectory.result.message.startswith(RelativeLoss(1.0).describe())


def test_t1_comes_before_the_rules():
    trajectory = with_rules(t1=1.7)
    assert trajectory.result.code == ResultCode.TIME_REACHED
    assert trajectory.result.time == 1.7
    assert_complete(trajectory, 1.7)


def test_a_rule_comes_before_t1():
    trajectory = with_rules(loss=RelativeLoss(0.5), t1=100.0, rtol=1e-7)
    assert trajectory.result.code == ResultCode.STOP_RULE_MET
    assert_complete(trajectory, np.log(2))


@pytest.mark.parametrize("options", [{"stop": None}, {"stop": ()}, {"stop": None, "saveat": [1.0]}])
def test_a_run_without_an_end_is_refused(options):
    with pytest.raises(gn.ConfigError, match="neither t1 nor a stop rule"):
        flow_down(**options)


@pytest.mark.parametrize("stop", [1e-8, "relative_loss", (RelativeLoss(0.1), 3), RelativeLoss])
def test_what_is_no_rule_is_refused(stop):
    with pytest.raises(gn.ConfigError, match=r"expected (a stop rule|an object of it)"):
        flow_down(stop=stop)


@pytest.mark.parametrize("rule", [RelativeLoss, GradientNorm, Movement])
@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("inf"), float("nan")])
def test_a_tolerance_must_be_positive(rule, tolerance):
    with pytest.raises(gn.ConfigError, match=rule.__name__):
        rule(tolerance)


def test_a_rule_of_the_users():
    trajectory = with_rules(largest=LargestWeight(2.0), rtol=1e-7)
    assert trajectory.result.message.startswith("the largest weight reached the limit")
    np.testing.assert_allclose(np.max(trajectory.model.w), 2.0, rtol=1e-5)


class Jump(AbstractStopRule):
    """A margin that is never small: the sign alone says when."""

    limit: float

    def margin(self, snapshot, memory):
        return jnp.where(jnp.max(snapshot.weights.w) < self.limit, 1.0, -1.0)

    def describe(self):
        return "the weight passed the limit"


def test_a_margin_that_jumps_over_zero_is_met_where_it_does():
    limit = AXES.weights(3.0).max()
    trajectory = flow_down(AXES, stop=Jump(limit), rtol=1e-7)
    assert trajectory.result.code == ResultCode.STOP_RULE_MET
    np.testing.assert_allclose(trajectory.result.time, 3.0, rtol=1e-4)
