"""The straight line of reversible networks: runs on it, directions that are truncated, records that were changed."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from theory.runs import as_if, failing, failing_record, run, slowed

import gnflow as gn
from gnflow.flows import ReversibleGaussNewtonFlow
from gnflow.models import ReversibleMLP
from gnflow.theory import Evidence, Verdict, verify
from gnflow.theory._exact_rate import ExactRate, _block_error, _solve_error
from gnflow.theory._reruns import Rerun

NUM_TRAIN, OUTPUTS, WIDTH = 4, 2, 8
RESIDUAL = "the direction is exact (relative residual)"


def network(width=WIDTH, outputs=OUTPUTS):
    return ReversibleMLP(width, 7, 2, outputs, activation="silu", init_scale=0.3, key=jr.key(1))


def problem(samples=NUM_TRAIN, width=WIDTH):
    keys = jr.split(jr.key(2))
    return gn.Problem(jr.normal(keys[0], (samples, width)), jr.normal(keys[1], (samples, OUTPUTS)))


def reversible_run(metric: Any = "identity", **options: Any) -> gn.Trajectory:
    return run(
        ReversibleGaussNewtonFlow(metric), **({"problem": problem(), "model": network(), "rtol": 1e-7} | options)
    )


@pytest.fixture(scope="module")
def evidence():
    """Of a run on the line, with what its repetitions measured."""
    evidence = Evidence(reversible_run())
    assert ExactRate().certify(evidence).verdict == Verdict.HOLDS
    return evidence


def changed(evidence, **changes):
    """The run with other parts, and the repetitions of the run as it was."""
    other = Evidence(dataclasses.replace(evidence.trajectory, **changes))
    vars(other).update(reference_rerun=evidence.reference_rerun, replicate_rerun=evidence.replicate_rerun)
    return other


def measuring(evidence, residuals):
    """As if these residuals, (k,), had been measured at the times of the reference."""
    other = changed(evidence)
    data = evidence.reference.data.assign(relative_residual=("time", residuals))
    vars(other)["reference"] = dataclasses.replace(evidence.reference, data=data)
    return other


@pytest.mark.parametrize("metric", ["identity", pytest.param("hessian", marks=pytest.mark.slow)])
def test_a_reversible_network_follows_the_line_at_rate_one(metric):
    trajectory = reversible_run(metric)
    certificate = verify(trajectory, "exact rate")
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert certificate.constants["k"] == 1
    np.testing.assert_allclose(certificate.constants["fitted rate"], 2, rtol=1e-6)
    assert len(certificate.claims) == 3
    assert certificate.constants["largest relative residual of the direction"] < 1e-12
    (check,) = [check for check in certificate.checks if check.name == RESIDUAL]
    assert not check.rigorous
    assert "of 32 measured times" in check.remark or "of 64 measured times" in check.remark
    # From the definition, without the certificate.
    data, end = problem(), float(trajectory.data.time[-1])
    first, last = (
        np.asarray(jax.vmap(model)(data.x_train) - data.y_train)
        for model in (trajectory.initial_model, trajectory.model)
    )
    np.testing.assert_allclose(last, np.exp(-end) * first, rtol=1e-4, atol=1e-8)


@pytest.mark.slow
def test_steps_judged_by_the_weights_alone():
    """The theorem is tested on a rerun that is judged by the outputs, as for any other run."""
    certificate = verify(reversible_run(rtol=1e-10, atol=1e-12, error_norm="weights"), "exact rate")
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert all(claim.error_bound < 1e-3 for claim in certificate.claims)


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_rate_that_is_wrong_by_a_hundredth_violates_it(evidence, factor):
    certificate = ExactRate().certify(as_if(evidence.trajectory, lambda rerun: slowed(rerun, factor)))
    assert certificate.verdict == Verdict.VIOLATED
    assert failing(certificate) == ["log L falls by 2 k t", "fitted rate of L = 2 k"]


def test_a_record_that_is_wrong_by_a_hundredth_is_not_of_this_flow(evidence):
    certificate = ExactRate().certify(changed(evidence, data=slowed(evidence.trajectory, 0.99).data))
    assert certificate.verdict == Verdict.VIOLATED
    assert "a rerun at another tolerance gives every training loss (log)" in failing_record(certificate)


def test_the_last_weights_off_the_line_violate_it(evidence):
    model = eqx.tree_at(lambda m: m.bias, evidence.trajectory.model, evidence.trajectory.model.bias + 1e-4)
    certificate = ExactRate().certify(as_if(evidence.trajectory, lambda rerun: dataclasses.replace(rerun, model=model)))
    assert certificate.verdict == Verdict.VIOLATED
    assert failing(certificate) == ["the last residual lies on the line (relative distance)"]
    certificate = ExactRate().certify(changed(evidence, model=model))
    assert certificate.verdict == Verdict.VIOLATED
    assert "the training loss is that of the stored weights (log)" in failing_record(certificate)


def test_a_clock_that_is_off_by_a_hundredth_is_seen(evidence, monkeypatch):
    monkeypatch.setattr(ReversibleGaussNewtonFlow, "reported_rate", 1.01)
    certificate = ExactRate().certify(changed(evidence))
    assert certificate.verdict == Verdict.VIOLATED
    assert len(failing(certificate)) == 3


@pytest.mark.slow
def test_more_samples_than_a_linear_half_block_carries_are_refused():
    """Five samples, and features of rank d/2 + 1 = 4."""
    data, model = problem(5, width=6), network(width=6)
    certificate = verify(reversible_run(problem=data, model=model, stop=None, t1=0.5), "exact rate")
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert f"not met: {RESIDUAL}" in certificate.reason
    assert "least rank of a half-block 4, 5 samples" in certificate.reason
    assert certificate.constants["largest relative residual of the direction"] > 0.01
    assert certificate.claims == ()


@pytest.mark.parametrize("residual", [2e-8, np.nan])
def test_a_direction_that_is_truncated_on_the_way_only_is_refused(evidence, residual):
    residuals = np.full(len(evidence.times), 1e-15)
    residuals[3] = residual
    certificate = ExactRate().certify(measuring(evidence, residuals))
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert f"largest at t = {evidence.times[3]:.4g}" in certificate.reason


def test_what_the_run_itself_recorded_is_refused_too(evidence):
    """At any saved time and at its end, whatever the repeated run measures."""
    residuals = np.full(len(evidence.recorded_times), 1e-15)
    residuals[1] = 1e-3
    recorded = evidence.trajectory.data.assign(relative_residual=("time", residuals))
    stats = {**evidence.trajectory.stats, "final_relative_residual": 1e-3}
    for other in (changed(evidence, data=recorded), changed(evidence, stats=stats)):
        certificate = ExactRate().certify(other)
        assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
        assert f"{RESIDUAL}: 0.001 is not <= 1e-08" in certificate.reason


def test_residuals_are_in_the_tolerance(evidence):
    """Integrated over the length of the run."""
    times = evidence.times
    other = measuring(evidence, np.full(len(times), 5e-9))
    np.testing.assert_allclose(_solve_error(other).measured, 5e-9 * times, rtol=1e-6)
    certificate = ExactRate().certify(other)
    assert certificate.verdict == Verdict.HOLDS
    largest = certificate.constants["largest error of the direction's solves, in log L"]
    np.testing.assert_allclose(largest, 2 * 5e-9 * times[-1], rtol=1e-6)


def test_a_projection_that_is_not_orthonormal_is_in_the_tolerance(evidence):
    """f' = -(f - y) u^T u, with u^T u = (1 + 1e-6)^2 I here."""
    model = evidence.trajectory.initial_model
    stretched = eqx.tree_at(lambda m: m.output_projection, model, (1 + 1e-6) * model.output_projection)
    np.testing.assert_allclose(_block_error(changed(evidence, initial_model=stretched)), 2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (gn.losses.SoftmaxCrossEntropy(), jnp.eye(OUTPUTS)[jnp.array([0, 1, 1, 0])]),
        (gn.losses.LogisticLoss(), jnp.array([0, 1, 1, 0])),
    ],
)
def test_other_losses_are_refused(evidence, loss, targets):
    data = gn.Problem(problem().x_train, targets, loss=loss)
    model = network(outputs=data.y_train.shape[1])
    certificate = ExactRate().certify(changed(evidence, problem=data, initial_model=model, model=model))
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "the loss is the squared loss" in certificate.reason


def test_a_run_that_cannot_be_repeated_is_undecided(evidence):
    other = changed(evidence)
    vars(other)["reference_rerun"] = Rerun(None, "it has lost its way")
    certificate = ExactRate().certify(other)
    assert certificate.verdict == Verdict.UNDECIDED
    assert "can be repeated (it has lost its way)" in certificate.reason


def test_steps_are_refused():
    steps = gn.iterate(problem(), network(), ReversibleGaussNewtonFlow(), step_size=0.1, num_steps=3)
    assert "continuous" in verify(steps, "exact rate").reason
