"""The a posteriori sandwich on runs: bands that hold, hypotheses that fail, records that were changed."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from simulate.test_solver_use import Drift
from theory.runs import as_if, failing_record, run, single_sample, slowed, tampered

import gnflow as gn
from gnflow.flows import ConstantGain, Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry.damping import Constant, SmallestEigenvalue
from gnflow.geometry.directions import ConjugateGradients
from gnflow.theory import Evidence, KernelDynamics, Sandwich, Verdict, _reruns, verify
from gnflow.theory._convolution import cumulative_integral
from gnflow.theory._rate_band import block_bounds

FLOWS = {
    "gradient": GradientFlow(),
    "gauss-newton": GaussNewtonFlow("identity", SmallestEigenvalue(1.0, floor=1e-7)),
    "gauss-newton, hessian": GaussNewtonFlow("hessian", Constant(1e-3)),
    "spectral": SpectralFlow(0.5, Constant(1e-4)),
    "frozen": Frozen(GradientFlow()),
}


# Each flow has programs of its own; the first has those of tests/theory/test_verify.py.
@pytest.mark.parametrize("name", ["gradient", *(pytest.param(n, marks=pytest.mark.slow) for n in list(FLOWS)[1:])])
def test_the_loss_falls_within_the_band(name):
    problem, model = make_problem(), mean_field(width=16)
    certificate = verify(run(FLOWS[name], problem=problem, model=model), "sandwich")
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert all(check.met for check in certificate.checks)
    assert len(certificate.claims) == 4
    for curves in certificate.curves:
        assert np.all(curves.lower <= curves.observed * (1 + 1e-6))
        assert np.all(curves.observed <= curves.upper * (1 + 1e-6))


@pytest.fixture(scope="module")
def exact():
    """Undamped Gauss-Newton flow with the squared loss: the band has no width."""
    return run(GaussNewtonFlow("identity", Constant(0.0)), model=mean_field(width=16), rtol=1e-6)


def test_a_band_without_width(exact):
    certificate = verify(exact, Sandwich())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    np.testing.assert_allclose(certificate.constants["smallest rho_low"], 2 / 4, rtol=1e-9)
    np.testing.assert_allclose(certificate.constants["largest rho_high"], 2 / 4, rtol=1e-9)


@pytest.mark.parametrize(("factor", "claim"), [(0.99, "at least"), (1.01, "at most")])
def test_a_rate_that_is_wrong_by_a_hundredth_violates_it(exact, factor, claim):
    certificate = Sandwich().certify(as_if(exact, lambda rerun: slowed(rerun, factor)))
    assert certificate.verdict == Verdict.VIOLATED
    (violated,) = [c for c in certificate.claims if c.verdict == Verdict.VIOLATED]
    assert claim in violated.name
    assert claim in certificate.reason


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_record_that_is_wrong_by_a_hundredth_is_not_of_this_flow(exact, factor):
    certificate = verify(slowed(exact, factor), Sandwich())
    assert certificate.verdict == Verdict.VIOLATED
    assert "a rerun at another tolerance gives every training loss (log)" in failing_record(certificate)


@pytest.mark.slow  # of the exact rate it is a fast one
def test_a_loose_tolerance_excuses_nothing():
    """What the recorded tolerance promises does not enter: a rough run passes, and one changed by a hundredth does not."""
    rough = run(GaussNewtonFlow("identity", Constant(0.0)), model=mean_field(width=16), rtol=2e-2, solver="tsit5")
    assert verify(rough, Sandwich()).verdict == Verdict.HOLDS
    assert verify(slowed(rough, 0.99), Sandwich()).verdict != Verdict.HOLDS


@pytest.mark.parametrize(
    ("side", "factor", "claim"), [("lower", 2.0, "rate >= rho_low"), ("upper", 0.5, "rate <= rho_high")]
)
def test_a_measured_bound_that_is_off_by_two_is_seen(exact, side, factor, claim):
    name = f"band_{side}"  # measured by the rerun on which the theorem is tested

    def wrong(rerun):
        return tampered(rerun, **{name: factor * rerun.data[name].to_numpy()}) if name in rerun.data else rerun

    certificate = Sandwich().certify(as_if(exact, wrong))
    assert certificate.verdict == Verdict.VIOLATED
    assert claim in {c.name for c in certificate.claims if c.verdict == Verdict.VIOLATED}


@pytest.mark.slow
@pytest.mark.parametrize(("side", "claim"), [(0, "rate >= rho_low"), (1, "rate <= rho_high")])
def test_a_bound_that_is_off_by_two_is_seen(monkeypatch, side, claim):
    """One sample and a kernel that does not move: both bounds are the rate itself."""
    flow = Frozen(GradientFlow())
    trajectory = run(flow, problem=single_sample(), model=mean_field(num_outputs=1))
    assert verify(trajectory, "sandwich").verdict == Verdict.HOLDS
    true = ConstantGain.bounds

    def wrong(*arguments):
        bounds = list(true(*arguments))
        bounds[side] = bounds[side] * (0.5 if side else 2.0)
        return tuple(bounds)

    monkeypatch.setattr(ConstantGain, "bounds", wrong)
    # Another width is another program: the compiled one knows the true bounds.
    other = run(flow, problem=single_sample(), model=mean_field(num_outputs=1, width=9 + side))
    certificate = verify(other, "sandwich")
    assert certificate.verdict == Verdict.VIOLATED
    assert claim in {c.name for c in certificate.claims if c.verdict == Verdict.VIOLATED}


@pytest.mark.slow
def test_times_too_sparse_to_bound_the_integral(monkeypatch):
    """The kernel of one sample moves, and is measured at the start, the end and one time between."""
    monkeypatch.setattr(_reruns, "_FEWEST_TIMES", 3)
    model = mean_field(num_outputs=1)
    certificate = verify(run(GradientFlow(), problem=single_sample(), model=model, saveat=[1e-9]), "sandwich")
    assert certificate.verdict == Verdict.UNDECIDED, str(certificate)
    assert "exp(-int" in certificate.reason


@pytest.mark.slow
def test_a_rate_that_may_dip_between_the_saves_accuses_nobody(monkeypatch):
    """Three saves, and a band that is twice the true one at each of them: the loss need not have been there in between."""
    monkeypatch.setattr(_reruns, "_FEWEST_TIMES", 3)
    flow = Frozen(GradientFlow())
    trajectory = run(flow, problem=single_sample(), model=mean_field(num_outputs=1), saveat=[1e-9])
    evidence = Evidence(trajectory)
    reference = evidence.reference
    assert reference is not None
    assert len(reference.data.time) == 3
    doubled = {f"band_{name}": 2 * reference.data[f"band_{name}"].to_numpy() for name in ("rate", "lower", "upper")}
    vars(evidence)["reference"] = tampered(reference, **doubled)
    certificate = Sandwich().certify(evidence)
    assert certificate.verdict == Verdict.UNDECIDED, str(certificate)
    assert "rho is monotone between the measured times" in verify(trajectory, Sandwich()).reason


def test_the_error_of_an_integral_at_worst():
    times = np.linspace(0.0, 1.0, 9)
    integral, error = cumulative_integral(times, np.exp(-times))
    true = 1 - np.exp(-times)
    assert np.all(np.abs(integral - true) <= error.measured + 1e-15)
    np.testing.assert_allclose(error.at_worst, error.measured)
    # Values that alternate are not monotone between every second time, so hardly between the times.
    alternating, rise = np.arange(9) % 2 * 1.0, np.array([0, 1, 0, 0, 0, 0, 0, 0, 0.0])
    for values in (alternating, rise):
        _, error = cumulative_integral(times, values)
        assert np.all(error.at_worst >= error.measured)
    assert cumulative_integral(times, alternating)[1].at_worst[-1] == 2 * 0.5
    for count in (2, 3, 4):
        _, error = cumulative_integral(times[:count], np.ones(count))
        assert np.all(error.measured == 0)
        assert np.all(np.isinf(error.at_worst[1:]))
    assert np.all(np.isfinite(cumulative_integral(times[:5], np.ones(5))[1].at_worst))


@pytest.mark.slow
def test_the_solves_of_an_ill_conditioned_matrix_are_in_the_tolerance():
    """The rate is 2/N whatever A, but for what its solves lose: far above rounding where two samples are nearly one."""
    problem = make_problem()
    nearly = problem.x_train.at[1].set(problem.x_train[0] + 1e-6)
    flow = GaussNewtonFlow("identity", Constant(0.0))
    trajectory = run(flow, problem=gn.Problem(nearly, problem.y_train), model=mean_field(width=16), stop=None, t1=1e-3)
    certificate = verify(trajectory, Sandwich())
    assert certificate.verdict != Verdict.VIOLATED, str(certificate)
    pointwise = [claim for claim in certificate.claims if claim.name.startswith("rate")]
    assert len(pointwise) == 2
    assert max(abs(claim.slack) for claim in pointwise) > 1e-8
    assert all(abs(claim.slack) < claim.tolerance for claim in pointwise)


@pytest.mark.parametrize("theorem", [Sandwich(), KernelDynamics()])
@pytest.mark.slow
def test_an_iterative_solver_must_have_solved(exact, theorem):
    loose = dataclasses.replace(exact, flow=GaussNewtonFlow("identity", Constant(0.0), ConjugateGradients()))
    residual = np.where(exact.data.time == exact.data.time[1], 1e-3, 1e-9)
    loose = dataclasses.replace(loose, data=exact.data.assign(relative_residual=("time", residual)))
    certificate = verify(loose, theorem)
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    checks = {check.name: check for check in certificate.checks}
    check = checks["the direction is Gauss-Newton's (relative residual of the solve)"]
    assert not check.met
    assert check.value == 1e-3


NOT_STRONGLY_CONVEX = {
    "softmax": gn.losses.SoftmaxCrossEntropy(),
    "huber": gn.losses.HuberLoss(),
}


@pytest.mark.parametrize("name", [pytest.param("softmax", marks=pytest.mark.slow), "huber"])
def test_a_loss_that_is_not_strongly_convex_is_refused(name):
    problem = make_problem(loss=NOT_STRONGLY_CONVEX[name])
    certificate = verify(run(GradientFlow(), problem=problem, stop=None, t1=1e-3), "sandwich")
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "mu > 0" in certificate.reason
    assert certificate.claims == ()


@pytest.mark.slow
def test_a_singular_gram_matrix_cannot_be_told_from_a_regular_one():
    problem = make_problem()
    twice = gn.Problem(problem.x_train[jnp.array([0, 0, 1, 2])], problem.y_train)
    certificate = verify(run(GradientFlow(), problem=twice, stop=None, t1=1.0), "sandwich")
    assert certificate.verdict == Verdict.UNDECIDED
    assert "sigma_min > 0" in certificate.reason
    assert certificate.claims == ()


def test_steps_and_other_flows_are_refused():
    steps = gn.iterate(make_problem(), mean_field(), GradientFlow(), step_size=0.1, num_steps=3)
    assert "continuous" in verify(steps, "sandwich").reason
    drift = verify(run(Drift(), stop=None, t1=0.1), "sandwich")
    assert drift.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "the flow has a gain that increases" in drift.reason


def test_extreme_eigenvalues_of_an_output_metric():
    """Against the whole matrix of the softmax Hessian, singular along one direction for each sample."""
    loss, problem = gn.losses.SoftmaxCrossEntropy(), make_problem(num_outputs=3, loss=gn.losses.SoftmaxCrossEntropy())
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    low, high = block_bounds(loss.hessian_factor(outputs, problem.y_train), (4, 3))
    p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    largest = max(np.linalg.eigvalsh(np.diag(q) - np.outer(q, q))[-1] for q in np.asarray(p)) / 4
    np.testing.assert_allclose(high, largest, rtol=1e-12)
    np.testing.assert_allclose(low, 0, atol=1e-16)
