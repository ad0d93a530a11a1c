"""The straight line of undamped Gauss-Newton flow: runs on it, hypotheses that fail, records that were changed."""

import dataclasses
import sys

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field, mlp
from theory.runs import as_if, failing, failing_record, run, slowed

import gnflow as gn
from gnflow.flows import GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry import output_metrics
from gnflow.geometry.damping import Constant, Exponential, LargestEigenvalue, SmallestEigenvalue, Trace
from gnflow.geometry.directions import ConjugateGradients
from gnflow.losses import DiagonalFactor, ScaledIdentity
from gnflow.theory import Evidence, Verdict, verify
from gnflow.theory._exact_rate import ExactRate, _no_damping, _solve_error

NUM_TRAIN = 4
UNDAMPED = GaussNewtonFlow("identity", Constant(0.0))


def network():
    return mean_field(width=16)


@pytest.fixture(scope="module")
def exact():
    return run(UNDAMPED, model=network(), rtol=1e-7)


def test_a_network_follows_the_line(exact):
    certificate = verify(exact, ExactRate())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert certificate.constants["k"] == 1 / NUM_TRAIN
    np.testing.assert_allclose(certificate.constants["fitted rate"], 2 / NUM_TRAIN, rtol=1e-6)
    low, high = (certificate.constants[f"fitted rate, {end} end of its 95% interval"] for end in ("lower", "upper"))
    assert low <= certificate.constants["fitted rate"] <= high
    assert len(certificate.claims) == 3
    (curve,) = certificate.curves
    np.testing.assert_allclose(curve.observed, curve.lower, rtol=1e-5)


@pytest.mark.parametrize("rtol", [1e-8, 1e-10])
def test_what_a_solver_interpolates_accuses_nobody(rtol):
    """Between steps nothing is promised: at these tolerances saves are off the line by more than all steps together."""
    certificate = verify(run(UNDAMPED, model=network(), rtol=rtol), ExactRate())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    (line, *_) = certificate.claims
    assert -line.slack < line.error_bound < 1e-6


@pytest.mark.slow
def test_the_hessian_metric_has_rate_one_in_another_network():
    certificate = verify(run(GaussNewtonFlow("hessian", Constant(0.0)), model=mlp(depth=1), rtol=1e-7), ExactRate())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert certificate.constants["k"] == 1


@pytest.mark.slow
def test_steps_judged_by_the_weights_alone(exact):
    """The record is reproduced; the theorem is tested on a rerun that is judged by the outputs, as for any other run."""
    weights = run(UNDAMPED, model=network(), rtol=1e-8, error_norm="weights")
    evidence = Evidence(weights)
    certificate = ExactRate().certify(evidence)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert evidence.replicate.settings["error_norm"] == "weights"
    assert evidence.reference.settings["error_norm"] == "function"
    assert "reproduced by a rerun with its settings" in certificate.compared


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_rate_that_is_wrong_by_a_hundredth_violates_it(exact, factor):
    certificate = ExactRate().certify(as_if(exact, lambda rerun: slowed(rerun, factor)))
    assert certificate.verdict == Verdict.VIOLATED
    assert failing(certificate) == ["log L falls by 2 k t", "fitted rate of L = 2 k"]
    np.testing.assert_allclose(certificate.constants["fitted rate"], 2 * factor / NUM_TRAIN, rtol=1e-5)


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_record_that_is_wrong_by_a_hundredth_is_not_of_this_flow(exact, factor):
    """The flow obeys the theorem; the record does not obey the flow."""
    certificate = verify(slowed(exact, factor), ExactRate())
    assert certificate.verdict == Verdict.VIOLATED
    assert failing(certificate) == []
    assert "a rerun at another tolerance gives every training loss (log)" in failing_record(certificate)


def test_the_last_weights_off_the_line_violate_it(exact):
    model = eqx.tree_at(lambda m: m.output_weight, exact.model, exact.model.output_weight.at[3, 1].add(1e-4))
    certificate = ExactRate().certify(as_if(exact, lambda rerun: dataclasses.replace(rerun, model=model)))
    assert certificate.verdict == Verdict.VIOLATED
    assert failing(certificate) == ["the last residual lies on the line (relative distance)"]
    assert verify(dataclasses.replace(exact, model=model), ExactRate()).verdict == Verdict.VIOLATED


def test_a_constant_that_is_off_by_two_is_seen(exact, monkeypatch):
    monkeypatch.setattr(sys.modules["gnflow.theory._exact_rate"], "metric_scale", lambda evidence: (2.0, True))
    certificate = verify(exact, ExactRate())
    assert certificate.verdict == Verdict.VIOLATED
    assert len(failing(certificate)) == 3


def test_a_loose_tolerance_excuses_nothing():
    """The theorem is tested on a tight rerun, so that a rough run passes, and a changed one does not."""
    rough = run(UNDAMPED, model=network(), rtol=2e-2, solver="dopri8")
    assert verify(rough, ExactRate()).verdict == Verdict.HOLDS
    assert verify(slowed(rough, 0.99), ExactRate()).verdict == Verdict.VIOLATED


# Of one run: only what a hypothesis reads is changed.
REFUSED = {
    "gradient flow": ({"flow": GradientFlow()}, "Gauss-Newton"),
    "spectral": ({"flow": SpectralFlow(0.9)}, "Gauss-Newton"),
    "another loss": ({"problem": make_problem(loss=gn.losses.HuberLoss())}, "squared loss"),
    "too few weights": ({"initial_model": mean_field(width=1), "model": mean_field(width=1)}, "P >= NC"),
}


class Weighted(type(output_metrics["identity"])):
    """A diagonal metric that is not a multiple of the identity."""

    def factor(self, loss, outputs, targets):
        return DiagonalFactor(jnp.ones_like(outputs).at[0, 0].set(2.0))


class Moving(type(output_metrics["identity"])):
    """A multiple of the identity that changes along the run."""

    def factor(self, loss, outputs, targets):
        return ScaledIdentity(1 + jnp.sum(outputs**2))


REFUSED |= {
    "weighted": ({"flow": GaussNewtonFlow(Weighted(), Constant(0.0))}, "constant multiple"),
    "moving": ({"flow": GaussNewtonFlow(Moving(), Constant(0.0))}, "constant multiple"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_runs_are_refused(exact, case):
    changes, hypothesis = REFUSED[case]
    certificate = verify(dataclasses.replace(exact, **changes), ExactRate())
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert hypothesis in certificate.reason
    assert certificate.claims == ()


def test_damping_is_refused_however_small():
    certificate = verify(run(GaussNewtonFlow("identity", Constant(1e-9)), model=network(), rtol=1e-7), ExactRate())
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "eps = 0: 1e-09 is not <= 0" in certificate.reason


@pytest.mark.slow
def test_damping_that_is_zero_at_the_end_only(exact):
    """The record of the end says 0; the run again says when it was not."""
    lifted = GaussNewtonFlow("identity", Exponential(1e-3, 100.0))
    certificate = verify(dataclasses.replace(exact, flow=lifted), ExactRate())
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "eps = 0: 0.001 is not <= 0" in certificate.reason


@pytest.mark.parametrize(
    "rule", [Constant(0.0), SmallestEigenvalue(0.0), LargestEigenvalue(0.0), Trace(0.0), Exponential(0.0, 1.0)]
)
def test_rules_that_never_damp(exact, rule):
    """Known without looking at the run."""
    check = _no_damping(Evidence(dataclasses.replace(exact, flow=GaussNewtonFlow("identity", rule))))
    assert check.met
    assert check.rigorous


@pytest.mark.slow
def test_a_singular_gram_matrix_is_not_called_invertible():
    problem = make_problem()
    twice = gn.Problem(problem.x_train[jnp.array([0, 0, 1, 2])], problem.y_train)
    certificate = verify(run(UNDAMPED, problem=twice, model=network(), stop=None, t1=1.0, rtol=1e-7), ExactRate())
    assert certificate.verdict == Verdict.UNDECIDED
    assert "sigma_min > 0" in certificate.reason


def test_steps_are_refused():
    steps = gn.iterate(make_problem(), network(), UNDAMPED, step_size=0.1, num_steps=3)
    assert "continuous" in verify(steps, ExactRate()).reason


def test_what_conjugate_gradients_may_leave_is_in_the_tolerance(exact):
    loose = GaussNewtonFlow("identity", Constant(0.0), ConjugateGradients(rtol=1e-4))
    evidence, other = Evidence(exact), Evidence(dataclasses.replace(exact, flow=loose))
    vars(other)["reference"] = evidence.reference
    times = evidence.times
    # The tolerance of a solve, over the length of the run.
    np.testing.assert_allclose(_solve_error(other).measured[-1], times[-1] * 1e-4, rtol=1e-3)
    assert _solve_error(evidence).measured[-1] < 1e-10
