"""Runs that change their solver along the way."""

import dataclasses

import jax
import numpy as np
import pytest

import gnflow as gn
from gnflow.flows import GradientFlow
from gnflow.simulate import _integrate, _tiers
from gnflow.simulate._tiers import Tiers
from gnflow.solvers import Change, Situation, _choice, choose_solver


def a_choice():
    """Stabilised steps until one takes more than 20 velocities; then exponential ones, which take 40."""
    situation = Situation(True, True, True, False, True, 500, None, lambda: None, lambda: 1e7, lambda: 1e9)
    chosen = choose_solver("auto", 1e-3, situation)
    return chosen._replace(change=Change(chosen.change.successor, 100.0, 40.0, 0.5))


def names(tiers):
    return [phase.chosen.name for phase in tiers.phases(0)]


def test_nothing_changes_without_a_successor():
    tiers = Tiers(a_choice().change.successor)
    assert (tiers.most_velocities, tiers.judged_at) == (np.inf, np.inf)
    assert tiers.following(1.0, 10, 1.0, 1000, 10**9) is tiers


def test_the_successor_begins_behind_a_step_that_takes_much():
    tiers = Tiers(a_choice())
    assert tiers.most_velocities == 20
    assert tiers.following(1.0, 10, 0.1, 20, 10**6) is tiers  # not more than half
    assert tiers.following(1.0, 10, 0.1, 21, 100) is tiers  # not worth another program
    changed = tiers.following(1.0, 10, 0.1, 21, 101)
    assert names(changed) == ["stabilised", "exponential"]
    assert changed.most_velocities == np.inf
    assert [(phase.begins, phase.num_steps) for phase in changed.phases(13)] == [(0.0, 10), (1.0, 3)]


@pytest.mark.parametrize(("length", "stays"), [(0.4, True), (0.3, False)])
def test_the_successor_stays_where_it_gets_half_as_far(length, stays):
    """Of a fifth of the flow time for 25 velocities."""
    trial = Tiers(a_choice()).following(1.0, 10, 0.1 * 2, 25, 101)
    judged_at = int(trial.judged_at)
    assert judged_at == 10 + _tiers._TRIAL
    assert trial.following(2.0, judged_at - 1, 1e-9, 0, 101) is trial
    # At flow time 2: gain 0.2 for 25 velocities before, length/2 for 40 now.
    judged = trial.following(2.0, judged_at, length, 0, 101)
    assert judged.judged_at == np.inf
    if stays:
        assert names(judged) == ["stabilised", "exponential"]
        assert judged.following(3.0, 100, 1e-9, 0, 10**6) is judged
    else:
        assert names(judged) == ["stabilised", "exponential", "stabilised"]
        assert "less far" in judged.chosen.reason
        assert judged.most_velocities == 60  # tried once more, later


def test_a_successor_of_which_no_step_is_accepted():
    trial = Tiers(a_choice()).following(1.0, 10, 0.2, 25, 101)
    judged = trial.following(1.0, int(trial.judged_at), 0.0, 0, 101)
    assert names(judged) == ["stabilised", "exponential", "stabilised"]
    assert "none of the first 5 steps of 'exponential' was accepted" in judged.chosen.reason


def test_a_step_that_stability_limits_is_enough():
    """Of a solver whose successor always gets farther: it is on no trial."""
    stabilised = a_choice()
    explicit = stabilised._replace(name="tsit5", change=Change(stabilised, 50.0))
    tiers = Tiers(explicit)
    assert tiers.most_velocities == np.inf
    assert tiers.following(1.0, 10, 0.1, 1000, 60) is tiers
    assert tiers.following(1.0, 10, 0.1, 6, 50, is_limited=True) is tiers
    found = tiers.following(1.0, 10, 0.1, 6, 51, is_limited=True)
    assert names(found) == ["tsit5", "stabilised"]
    assert (found.judged_at, found.most_velocities) == (np.inf, 20)
    # Its own successor is tried, and left for it, not for the first.
    trial = found.following(2.0, 20, 0.1, 21, 101)
    assert names(trial.following(3.0, int(trial.judged_at), 1e-9, 0, 101)) == [
        *("tsit5", "stabilised", "exponential", "stabilised")
    ]


def test_a_successor_that_is_tried_once():
    stabilised = a_choice()
    explicit = stabilised._replace(name="dopri8", change=Change(stabilised.change.successor, 50.0, 5.0))
    trial = Tiers(explicit).following(1.0, 10, 0.1, 14, 51, is_limited=True)
    back = trial.following(2.0, int(trial.judged_at), 1e-9, 0, 10**6)
    assert names(back) == ["dopri8", "exponential", "dopri8"]
    assert back.following(3.0, 100, 0.1, 14, 10**6, is_limited=True) is back


@pytest.fixture
def early(monkeypatch):
    """Small problems change their solver, too, as soon as they can."""
    monkeypatch.setattr(_choice, "_FEW_VELOCITIES", 0.0)
    monkeypatch.setattr(_choice, "_FEW_OPERATIONS", 0.0)
    monkeypatch.setattr(_choice, "_WORTH_COMPILING", 0.0)


def a_run(**options):
    key = jax.random.key(1)
    problem = gn.problems.teacher_student(8, 5, input_dim=2, teacher_width=2, key=key)
    model = gn.models.MeanFieldNetwork(input_dim=2, width=20, key=key)
    return gn.simulate(problem, model, GradientFlow(), stop=gn.RelativeLoss(1e-4), **options)


@pytest.mark.usefixtures("early")
def test_a_run_that_changes_its_solver():
    trajectory = a_run()
    stats = trajectory.stats
    assert stats["solver"] == "stabilised, then exponential"
    assert "as long as" in stats["solver_reason"]
    assert "; from flow time " in stats["solver_reason"]
    assert stats["estimated_error"] < stats["promised_error"]
    assert stats["num_velocity_evaluations"] > 3 * stats["num_steps"]
    # By its name it would be the stabilised solver to the end.
    assert trajectory.settings["solver"] == "auto"
    exact = a_run(solver="exponential", rtol=1e-7, saveat=trajectory.data.time.values[1:-1])
    residuals = [np.sqrt(run.data.train_loss.values[1:-1]) for run in (trajectory, exact)]
    assert np.max(np.abs(residuals[0] / residuals[1] - 1)) < stats["promised_error"]
    assert float(trajectory.data.time[-1]) == pytest.approx(float(exact.data.time[-1]), rel=0.02)


@pytest.mark.usefixtures("early")
def test_a_run_of_three_solvers(monkeypatch):
    two = a_run()
    monkeypatch.setattr(_choice, "_HEAVY_VELOCITY", 0.0)
    three = a_run()
    assert three.stats["solver"] == "tsit5, then stabilised, then exponential"
    assert "stability limits explicit steps" in three.stats["solver_reason"]
    assert three.stats["estimated_error"] < three.stats["promised_error"]
    assert float(three.data.time[-1]) == pytest.approx(float(two.data.time[-1]), rel=0.02)


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("solvers", ["stabilised, then exponential", "tsit5, then stabilised, then exponential"])
def test_what_comes_out_does_not_depend_on_the_segments(solvers, monkeypatch):
    monkeypatch.setattr(_choice, "_HEAVY_VELOCITY", 0.0 if solvers.startswith("tsit5") else np.inf)
    monkeypatch.setattr(_integrate, "_FIRST_STEPS", 100)
    whole = a_run()
    monkeypatch.setattr(_integrate, "_FIRST_STEPS", 1)
    monkeypatch.setattr(_integrate, "_MOST_STEPS", 1)
    single = a_run()
    assert single.stats["solver"] == whole.stats["solver"] == solvers
    assert single.stats["num_steps"] == whole.stats["num_steps"]
    np.testing.assert_allclose(single.data.train_loss, whole.data.train_loss, rtol=1e-10)


@pytest.mark.usefixtures("early")
def test_a_solver_that_gets_less_far_is_left_again(monkeypatch):
    monkeypatch.setattr(_tiers, "_WORSE", 1e-9)
    trajectory = a_run()
    assert trajectory.stats["solver"].startswith("stabilised, then exponential, then stabilised")
    assert trajectory.result.code == gn.ResultCode.STOP_RULE_MET
    assert trajectory.stats["estimated_error"] < trajectory.stats["promised_error"]


@pytest.mark.usefixtures("early")
def test_the_error_so_far_is_carried_over_a_change(monkeypatch):
    """Made large before the change, it is large behind it."""
    before = a_run(rtol=1e-3).stats["estimated_error"]
    changed = _integrate.changed

    def spoiled(segment, *rest):
        state = segment.solver_state
        error = jax.tree.map(lambda leaf: leaf + 1e-2, state.error)
        return changed(dataclasses.replace(segment, solver_state=dataclasses.replace(state, error=error)), *rest)

    monkeypatch.setattr(_integrate, "changed", spoiled)
    assert a_run(rtol=1e-3, throw=False).stats["estimated_error"] != pytest.approx(before, rel=0.5)
