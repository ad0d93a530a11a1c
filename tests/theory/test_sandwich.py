"""The a posteriori sandwich on runs: bands that hold, hypotheses that fail, records that were changed."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from simulate.test_solver_use import Drift
from theory.runs import run, single_sample, slowed

import gnflow as gn
from gnflow.flows import Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry.damping import Constant, SmallestEigenvalue
from gnflow.theory import Sandwich, Verdict, verify
from gnflow.theory._rate_band import block_bounds

FLOWS = {
    "gradient": GradientFlow(),
    "gauss-newton": GaussNewtonFlow("identity", SmallestEigenvalue(1.0, floor=1e-7)),
    "gauss-newton, hessian": GaussNewtonFlow("hessian", Constant(1e-3)),
    "spectral": SpectralFlow(0.5, Constant(1e-4)),
    "frozen": Frozen(GradientFlow()),
}


@pytest.mark.parametrize("name", FLOWS)
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
    certificate = verify(slowed(exact, factor), Sandwich())
    assert certificate.verdict == Verdict.VIOLATED
    (violated,) = [c for c in certificate.claims if c.verdict == Verdict.VIOLATED]
    assert claim in violated.name
    assert claim in certificate.reason


def test_a_tolerance_too_loose_to_tell_a_hundredth():
    """The solver promises no better than 2 rtol a step; within that it does not accuse."""
    rough = run(GaussNewtonFlow("identity", Constant(0.0)), model=mean_field(width=16), rtol=2e-2, solver="tsit5")
    assert verify(slowed(rough, 0.99), Sandwich()).verdict == Verdict.UNDECIDED


@pytest.mark.parametrize(("side", "claim"), [(0, "rate >= rho_low"), (1, "rate <= rho_high")])
def test_a_bound_that_is_off_by_two_is_seen(monkeypatch, side, claim):
    """One sample and a kernel that does not move: both bounds are the rate itself."""
    flow = Frozen(GradientFlow())
    trajectory = run(flow, problem=single_sample(), model=mean_field(num_outputs=1))
    assert verify(trajectory, "sandwich").verdict == Verdict.HOLDS
    module = sys.modules["gnflow.theory._rate_band"]
    true = module.gain_bounds

    def wrong(*arguments):
        bounds = list(true(*arguments))
        bounds[side] = bounds[side] * (0.5 if side else 2.0)
        return tuple(bounds)

    monkeypatch.setattr(module, "gain_bounds", wrong)
    # Another width is another program: the compiled one knows the true bounds.
    other = run(flow, problem=single_sample(), model=mean_field(num_outputs=1, width=9 + side))
    certificate = verify(other, "sandwich")
    assert certificate.verdict == Verdict.VIOLATED
    assert claim in {c.name for c in certificate.claims if c.verdict == Verdict.VIOLATED}


def test_saves_too_sparse_to_bound_the_integral():
    """The kernel of one sample moves, and only start and end are saved."""
    model = mean_field(num_outputs=1)
    certificate = verify(run(GradientFlow(), problem=single_sample(), model=model, saveat=[1e-9]), "sandwich")
    assert certificate.verdict == Verdict.UNDECIDED, str(certificate)
    assert "exp(-int" in certificate.reason


NOT_STRONGLY_CONVEX = {
    "softmax": gn.losses.SoftmaxCrossEntropy(),
    "huber": gn.losses.HuberLoss(),
}


@pytest.mark.parametrize("name", NOT_STRONGLY_CONVEX)
def test_a_loss_that_is_not_strongly_convex_is_refused(name):
    problem = make_problem(loss=NOT_STRONGLY_CONVEX[name])
    certificate = verify(run(GradientFlow(), problem=problem, stop=None, t1=1e-3), "sandwich")
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "mu > 0" in certificate.reason
    assert certificate.claims == ()


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
    assert "gradient, Gauss-Newton or spectral" in drift.reason


def test_extreme_eigenvalues_of_an_output_metric():
    """Against the whole matrix of the softmax Hessian, singular along one direction for each sample."""
    loss, problem = gn.losses.SoftmaxCrossEntropy(), make_problem(num_outputs=3, loss=gn.losses.SoftmaxCrossEntropy())
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    low, high = block_bounds(loss.hessian_factor(outputs, problem.y_train), (4, 3))
    p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    largest = max(np.linalg.eigvalsh(np.diag(q) - np.outer(q, q))[-1] for q in np.asarray(p)) / 4
    np.testing.assert_allclose(high, largest, rtol=1e-12)
    np.testing.assert_allclose(low, 0, atol=1e-16)
