"""Records whose settings were edited: they do not come from their settings, which is said of them, and accuses no theorem."""

import dataclasses
import functools
import json

import diffrax
import numpy as np
import pytest
from facts.recording import mean_field
from theory.runs import run, tampered

import gnflow as gn
from gnflow.flows import GaussNewtonFlow
from gnflow.geometry.damping import Constant
from gnflow.theory import Evidence, ExactRate, Sandwich, Verdict

UNDAMPED = GaussNewtonFlow("identity", Constant(0.0))


@functools.cache
def loose():
    """Off by 4% of the loss, so that a record judged by a better run would be accused."""
    return run(UNDAMPED, model=mean_field(width=16), rtol=0.05, solver="exponential")


def certify(trajectory):
    return ExactRate().certify(Evidence(trajectory))


def edited(**settings):
    return dataclasses.replace(loose(), settings=loose().settings | settings)


def drifted(trajectory):
    loss = trajectory.data.train_loss.to_numpy()
    i = np.arange(len(loss))
    return tampered(trajectory, train_loss=loss * (1 + 0.3 * np.sin(np.pi * i / i[-1]) ** 2))


def test_the_honest_record_holds():
    certificate = certify(loose())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    names = [check.name for check in certificate.checks]
    assert "the recorded settings are valid" in names
    assert "the run takes the steps of its settings" in names
    assert all(check.met for check in certificate.checks)
    assert certify(drifted(loose())).verdict == Verdict.VIOLATED


PLATEAU = (gn.RelativeLoss(1e-4), gn.LossPlateau(1.0))
# What each edit is called in the reason.
EDITS = {
    "max_steps": (
        {"max_steps": 3},
        "max_steps = 3; the settings give max_steps_reached, the record says stop_rule_met",
    ),
    "stop, earlier": ({"stop": (gn.RelativeLoss(0.1),)}, "18.44, not 4.605 (stop = (RelativeLoss(tolerance=0.1),); "),
    "stop, later": ({"stop": (gn.RelativeLoss(1e-6),)}, "18.44, not 27.96 (stop = (RelativeLoss(tolerance=1e-06),); "),
    "stop, hardly earlier": ({"stop": (gn.RelativeLoss(1.02e-4),)}, "stop = (RelativeLoss(tolerance=0.000102),)"),
    "t1": ({"t1": 0.5}, "18.44, not 0.5 (t1 = 0.5; the settings give time_reached, the record says stop_rule_met)"),
    "rtol, tighter": ({"rtol": 1e-8}, "(num_steps; rtol = 1e-08, "),
    "rtol, looser": ({"rtol": 0.3}, "(num_steps; rtol = 0.3, "),
    "rtol, hardly tighter": ({"rtol": 0.04}, "rtol = 0.04, "),
    "atol": ({"atol": 1e-3}, "(estimated_error; rtol = 0.05, atol = 0.001, "),
    "error norm": ({"error_norm": "weights"}, "error_norm = 'weights'"),
    "solver": ({"solver": "tsit5"}, "solver = 'tsit5', but the run's statistics say 'exponential'"),
    "no solver": ({"solver": "x"}, "solver = 'x', but the run's statistics say 'exponential'"),
    "saves": ({"saveat": [1.0]}, "the saves are at the times of the settings (saveat = [1.0])"),
    "stop, by steps": ({"stop": PLATEAU}, "LossPlateau(decades=1.0"),
}
SLOW = ("error norm", "solver", "saves", "stop, by steps")


@pytest.mark.parametrize("edit", [pytest.param(e, marks=pytest.mark.slow if e in SLOW else ()) for e in EDITS])
def test_an_edited_setting_is_named_and_accuses_nobody(edit):
    settings, named = EDITS[edit]
    certificate = certify(edited(**settings))
    assert certificate.verdict == Verdict.UNDECIDED, str(certificate)
    assert named in certificate.reason
    # The flow is what it was, and the theorem holds on it.
    assert {claim.verdict for claim in certificate.claims} == {Verdict.HOLDS}
    assert Verdict.VIOLATED not in {claim.verdict for claim in certificate.record}
    assert all(len(line) <= 80 for line in str(certificate).splitlines())


@pytest.mark.parametrize("edit", ["max_steps", "stop, earlier", "t1", "rtol, tighter", "atol"])
def test_an_edited_setting_excuses_no_drift(edit):
    settings, _ = EDITS[edit]
    assert certify(drifted(edited(**settings))).verdict in (Verdict.UNDECIDED, Verdict.VIOLATED)


def test_a_limit_that_was_not_reached_may_be_another():
    for settings in ({"t1": 1e3}, {"atol": 1e-14}):
        assert certify(edited(**settings)).verdict == Verdict.HOLDS


def test_max_steps_bounds_the_first_of_several_solutions():
    """One that was made to see the error of another may have taken more."""
    trajectory = dataclasses.replace(edited(max_steps=3), stats=loose().stats | {"num_solutions": 2})
    assert certify(trajectory).verdict == Verdict.HOLDS


NO_SETTINGS = [
    *[{"rtol": value} for value in (float("nan"), "x", None, -1e-3, 0, 1.0, [1e-3])],
    *[{"atol": value} for value in (float("nan"), "x", None, -1e-13, float("inf"))],
    {"t1": float("nan")},
    {"t1": "x"},
    {"stop": "x"},
    {"stop": ()},
    {"stop": (1e-4,)},
    {"saveat": "x"},
    {"solver": None},
    {"error_norm": "x"},
    {"error_norm": None},
    {"metrics": None},
    {"max_steps": 0},
    {"max_steps": None},
    {"kind": "iterate"},
]


@pytest.mark.parametrize("settings", NO_SETTINGS, ids=str)
def test_what_no_run_can_have_been_called_with_is_named(settings):
    """It is replaced in the reruns, and not in silence."""
    ((name, value),) = settings.items()
    certificate = certify(edited(**settings))
    assert certificate.verdict == Verdict.UNDECIDED
    expected = "neither t1 nor a stop rule" if value == () else repr(value)
    assert "the recorded settings are valid (" in certificate.reason
    assert expected in certificate.reason
    assert name.split("_")[0] in certificate.reason
    (check,) = [check for check in certificate.checks if check.name == "the recorded settings are valid"]
    assert check.met is False
    assert {claim.verdict for claim in certificate.claims} == {Verdict.HOLDS}


def test_rules_that_their_constructor_would_refuse():
    """A file is read without asking it."""
    for tolerance in (-1.0, float("nan"), "x"):
        rule = object.__new__(gn.RelativeLoss)
        object.__setattr__(rule, "tolerance", tolerance)
        certificate = certify(edited(stop=(rule,)))
        assert certificate.verdict == Verdict.UNDECIDED
        assert f"RelativeLoss: tolerance = {tolerance!r}; expected" in certificate.reason


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_flow_that_its_constructor_would_refuse(value):
    """Nobody is accused of what a negative damping does."""
    damping = object.__new__(Constant)
    object.__setattr__(damping, "value", value)
    certificate = Sandwich().certify(Evidence(dataclasses.replace(loose(), flow=GaussNewtonFlow("identity", damping))))
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET, str(certificate)
    assert f"flow and loss are legal (Constant: value = {value!r}; expected" in certificate.reason


def test_a_last_model_of_another_kind():
    """Another activation, and another width."""
    for model in (mean_field(width=16, activation="tanh"), mean_field(width=4)):
        certificate = certify(dataclasses.replace(loose(), model=model))
        assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
        assert "the last model is the first with other weights" in certificate.reason


def test_a_setting_that_is_missing():
    settings = {name: value for name, value in loose().settings.items() if name != "rtol"}
    certificate = certify(dataclasses.replace(loose(), settings=settings))
    assert certificate.verdict == Verdict.UNDECIDED
    assert "rtol is missing" in certificate.reason


def test_a_file_that_was_edited(tmp_path):
    loose().save(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    record["settings"]["max_steps"] = 3
    record["settings"]["rtol"] = float("nan")
    file.write_text(json.dumps(record))
    certificate = certify(gn.load(tmp_path / "run"))
    assert certificate.verdict == Verdict.UNDECIDED
    assert "rtol = nan" in certificate.reason


@pytest.mark.slow
def test_a_solver_of_the_users_accuses_nobody():
    """A rerun cannot take it, and does not know what it is off by."""
    trajectory = run(UNDAMPED, model=mean_field(width=16), rtol=0.3, solver=diffrax.Heun(), throw=False)
    certificate = certify(trajectory)
    assert certificate.verdict == Verdict.UNDECIDED
    assert Verdict.VIOLATED not in {claim.verdict for claim in certificate.record}
