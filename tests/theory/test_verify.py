"""Verdict rules, certificates as text, and `verify` itself."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from theory.runs import failing_record, run, tampered

import gnflow as gn
from gnflow.flows import GradientFlow
from gnflow.theory import Certificates, Check, Claim, Evidence, Sandwich, Verdict, theorem_kinds, verify
from gnflow.theory._claim import Error, compare
from gnflow.theory._reruns import matching, reference_times
from gnflow.theory._verdict import of_claims


@pytest.mark.parametrize(
    ("slack", "tolerance", "error_bound", "expected"),
    [
        (0.5, 0.1, 0.2, Verdict.HOLDS),
        (-0.05, 0.1, 0.2, Verdict.HOLDS),
        (-0.15, 0.1, 0.2, Verdict.UNDECIDED),
        (-0.25, 0.1, 0.2, Verdict.VIOLATED),
        # An error above the resolution, 1: only what is clearly inside or outside.
        (0.5, 2.0, 3.0, Verdict.UNDECIDED),
        (2.5, 2.0, 3.0, Verdict.HOLDS),
        (-3.5, 2.0, 3.0, Verdict.VIOLATED),
        (math.nan, 0.1, 0.2, Verdict.UNDECIDED),
        (0.5, math.nan, 0.2, Verdict.UNDECIDED),
        (0.5, math.inf, math.inf, Verdict.UNDECIDED),
        (math.inf, 0.1, 0.2, Verdict.UNDECIDED),
        (-math.inf, 0.1, 0.2, Verdict.VIOLATED),
    ],
)
def test_the_verdict_of_a_claim(slack, tolerance, error_bound, expected):
    assert Claim("c", 1.0, 1.0, slack, tolerance, error_bound, resolution=1.0).verdict == expected


def test_numbers_that_are_infinite_show_nothing():
    """However infinite the error at which agreement is said to count."""
    infinite = Claim("c", math.inf, 1.0, -math.inf, math.inf, math.inf, resolution=math.inf)
    assert infinite.verdict == Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("value", "relation", "threshold", "error", "met"),
    [
        (2.0, ">", 1.0, 0.0, True),
        (1.0, ">", 1.0, 0.0, False),
        (1.0, ">=", 1.0, 0.0, True),
        (0.5, "<", 1.0, 0.0, True),
        (1.5, "<=", 1.0, 0.0, False),
        (1.05, ">", 1.0, 0.1, None),
        (0.95, ">", 1.0, 0.1, None),
        (0.8, ">", 1.0, 0.1, False),
        (1.0, "==", 1.0, 0.0, True),
        (1.0, "==", 0.0, 0.0, False),
        (math.nan, ">", 1.0, 0.0, None),
        (math.inf, "<", 1.0, 0.0, False),
    ],
)
def test_whether_a_hypothesis_is_met(value, relation, threshold, error, met):
    assert Check("h", value, relation, threshold, error).met is met


@pytest.fixture(scope="module")
def trajectory():
    return run(GradientFlow(), model=mean_field(width=16), stop=gn.RelativeLoss(1e-2))


def test_a_certificate_says_everything_in_every_form(trajectory):
    certificate = verify(trajectory, Sandwich())
    text, record, page = str(certificate), json.loads(certificate.to_json()), certificate.to_markdown()
    for part in ("sandwich: holds", "docs/theorems/sandwich.md", "mu > 0", "rate >= rho_low", "largest sigma_max"):
        assert part in text
    assert record["verdict"] == "holds"
    assert [check["name"] for check in record["checks"]] == [check.name for check in certificate.checks]
    assert {claim["verdict"] for claim in record["claims"] + record["record"]} == {"holds"}
    assert all(len(line) <= 80 for line in text.splitlines()), text
    for claim, told in zip(certificate.claims, record["claims"], strict=True):
        assert told["slack_over_error"] == claim.slack_over_error
        assert f"{claim.slack_over_error:.4g}" in text
        assert f"{claim.slack_over_error:.6g}" in page
    assert record["constants"] == dict(certificate.constants)
    assert page.count("| --- |") >= 1
    assert all(check.name in page for check in certificate.checks)
    figure = certificate.plot()
    assert [axis.get_ylabel() for axis in figure.axes] == ["L - L*", "decay rate of the loss [1/flow time]"]
    assert all(axis.get_xlabel() for axis in figure.axes)


@pytest.mark.parametrize(
    ("slack", "resolution", "agrees"),
    [(3.7e-4, 1.0, True), (-0.03, 1.0, True), (0.041, 1.0, False), (3.7e-4, 0.01, False), (-0.05, 1.0, False)],
)
def test_what_agrees_within_its_error(slack, resolution, agrees):
    """A slack of 0.00037 with an error of 0.04 is none; where the error is too large to tell, nothing agrees."""
    assert Claim("c", 1.0, 1.0, slack, 0.04, 0.04, resolution).only_agrees is agrees


def test_a_slack_below_its_error_is_not_told_as_one(trajectory):
    """In words beside every such claim, and in the reason if it is the closest."""
    certificate = verify(trajectory, Sandwich())
    near, far = Claim("near", 1.0, 1.0, 3.7e-4, 0.04, 0.04, 1.0), Claim("far", 1.0, 1.0, 0.5, 0.04, 0.04, 1.0)
    certificate = dataclasses.replace(certificate, claims=(near, far), record=())
    text, page = str(certificate), certificate.to_markdown()
    assert "  near (agrees within the error)" in text
    assert "  far\n" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert page.count("| agrees within the error |") == 1
    assert [claim["agrees_within_the_error"] for claim in certificate.to_dict()["claims"]] == [True, False]
    assert (
        "near, which agrees within the error (slack 0.00037, error 0.04, slack/error 0.00925)"
        in of_claims((near, far))[1]
    )
    assert "agrees" not in of_claims((far,))[1]


def test_a_loss_of_zero_that_was_written_into_the_record(trajectory):
    loss = trajectory.data.train_loss.to_numpy().copy()
    loss[-1] = 0.0
    certificate = verify(tampered(trajectory, train_loss=loss), Sandwich())
    assert certificate.verdict == Verdict.VIOLATED, str(certificate)
    assert "the training loss is that of the stored weights (log)" in failing_record(certificate)


def test_what_atol_promises_is_relative_to_the_rms_residual(trajectory):
    evidence = Evidence(trajectory)
    reference = evidence.reference
    settings = reference.settings | {"rtol": 0.0, "atol": 1e-3}
    accuracy = dataclasses.replace(evidence.accuracy, reference=dataclasses.replace(reference, settings=settings))
    vars(accuracy)["between"] = np.zeros(len(evidence.times))
    residual = np.asarray(evidence.system.outputs(evidence.flow_end) - trajectory.problem.y_train)
    rms = np.sqrt(np.mean(np.sum(residual**2, axis=1)))
    promised = (accuracy.loss.at_worst - accuracy.rounding)[-1]
    np.testing.assert_allclose(promised, 2 * 1e-3 / rms * reference.stats["num_accepted_steps"], rtol=1e-6)


def test_a_run_saved_at_its_ends_only():
    ends = run(GradientFlow(), t1=1.0, stop=None, saveat=[1.0], solver="tsit5")
    assert len(ends.data.time) == 2
    certificate = verify(ends, Sandwich())
    assert all(check.met for check in certificate.checks), str(certificate)
    assert certificate.claims
    assert certificate.verdict != Verdict.VIOLATED


def test_every_theorem_on_one_run(trajectory):
    certificates = verify(trajectory)
    assert isinstance(certificates, Certificates)
    assert [c.theorem for c in certificates] == [name for name, kind in theorem_kinds.items() if not kind.own_runs]
    assert certificates.violated == ()
    assert certificates.by_name("sandwich").verdict == Verdict.HOLDS
    with pytest.raises(KeyError, match="sandwich"):
        certificates.by_name("none")
    assert len(str(certificates).splitlines()) == len(certificates) + 1
    assert len(json.loads(certificates.to_json())) == len(certificates)
    assert certificates.to_markdown().count("### ") == len(certificates)


class Expensive(Sandwich):
    """A theorem that says it takes runs of its own."""

    name = "expensive"
    own_runs = True


def test_those_with_runs_of_their_own_where_asked_for(trajectory, monkeypatch):
    kinds = {"sandwich": Sandwich, "expensive": Expensive}
    monkeypatch.setattr(sys.modules["gnflow.theory._verify"], "theorem_kinds", kinds)
    assert [c.theorem for c in verify(trajectory)] == ["sandwich"]
    assert [c.theorem for c in verify(trajectory, "all")] == ["sandwich", "expensive"]
    assert verify(trajectory, "expensive").theorem == "expensive"


def test_several_by_name(trajectory):
    certificates = verify(trajectory, ["sandwich", Sandwich()])
    assert [c.theorem for c in certificates] == ["sandwich", "sandwich"]


def test_what_is_no_theorem_and_no_run(trajectory):
    with pytest.raises(gn.ConfigError, match="did you mean 'sandwich'"):
        verify(trajectory, "sandwhich")
    with pytest.raises(gn.ConfigError, match="AbstractTheorem"):
        verify(trajectory, [3])
    with pytest.raises(gn.ConfigError, match="Trajectory"):
        verify(make_problem())


def test_a_point_that_could_not_have_failed_says_nothing():
    """An error of 0.04 against an observation of 0.0126: beside a point that tells, and alone."""
    observed, bound, error = np.array([0.0126, 6.0]), np.array([0.0122, 5.9]), np.array([0.04, 0.04])
    places = ["early", "late"]
    both = compare("c", observed, ">=", bound, error, 0.05 * bound, places)
    assert both.verdict == Verdict.HOLDS
    assert (both.where, both.telling, both.places) == ("late", 1, 2)
    assert compare("c", observed, ">=", bound, error, 0.05 * bound, places, every=True).verdict == Verdict.UNDECIDED
    alone = compare("c", observed[:1], ">=", bound[:1], error[:1], 0.05 * bound[:1], places[:1])
    assert alone.verdict == Verdict.UNDECIDED
    assert alone.telling == 0
    # It still accuses where it is far outside.
    wrong = compare("c", observed - np.array([1.0, 0.0]), ">=", bound, error, 0.05 * bound, places)
    assert (wrong.verdict, wrong.where) == (Verdict.VIOLATED, "early")


@pytest.mark.parametrize(
    ("relation", "slack"), [(">=", -0.5), ("<=", 0.5), ("==", -0.5)], ids=["at least", "at most", "equal"]
)
def test_the_slack_of_a_comparison(relation, slack):
    claim = compare("c", 1.0, relation, 1.5, Error(0.1, 0.2), 1.0, "here")
    assert (claim.slack, claim.tolerance, claim.error_bound, claim.where) == (slack, 0.1, 0.2, "here")
    assert claim.verdict == (Verdict.VIOLATED if slack < 0 else Verdict.HOLDS)
    many = compare("c", np.array([1.0, 1.5]), relation, np.array([1.5, 1.5]), 0.1, 1.0, ["here", "there"])
    assert many.where == ("there" if relation == "<=" else "here")


def test_the_arithmetic_of_errors():
    error = Error(np.array([1.0, 2.0]), np.array([0.5, 4.0]))
    both = np.array([1.0, 1.0]) + 2 * error + Error.known(1.0)
    assert both.measured.tolist() == [4.0, 6.0]
    assert both.at_worst.tolist() == [3.0, 10.0]
    assert error.ordered().at_worst.tolist() == [1.0, 4.0]
    assert error[1] == Error(2.0, 4.0)


@pytest.mark.parametrize(("slack", "error", "ratio"), [(-0.5, 0.25, -2.0), (0.0, 0.0, math.inf), (1.0, 0.0, math.inf)])
def test_slack_over_error(slack, error, ratio):
    assert Claim("c", 0.0, 0.0, slack, error, error, 1.0).slack_over_error == ratio


def test_the_times_of_the_reference():
    """Every recorded one, those of the replicate that are others, and so many that few programs are compiled."""
    recorded = np.array([0.0, *np.geomspace(1e-3, 10.0, 33)])
    stretched = recorded * 1.01
    for others in (recorded, recorded * (1 + 1e-9), stretched):
        times = reference_times(recorded, others)
        assert len(times) in (64, 128)
        assert np.all(np.diff(times) > 0)
        assert times[-1] == recorded[-1]
        assert np.isin(recorded, times).all()
        assert np.all(matching(others[others < 10], times) >= 0)
    assert len(reference_times(np.array([0.0, 1.0]), np.array([0.0, 1.0]))) == 32
    assert matching(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0 + 1e-9, 3.0])).tolist() == [0, 1, -1]
