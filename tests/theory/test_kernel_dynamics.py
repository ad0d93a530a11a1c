"""Closed forms of models that are linear in their weights: runs that follow them, others that are refused or changed."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import jacobian, make_problem, mean_field, mlp
from theory.runs import as_if, failing, run, slowed

import gnflow as gn
from gnflow.flows import (
    ConstantGain,
    Frozen,
    GaussNewtonFlow,
    GradientFlow,
    InverseGain,
    PowerGain,
    SpectralFlow,
)
from gnflow.geometry import IdentityMetric
from gnflow.geometry.damping import Constant, Exponential, SmallestEigenvalue
from gnflow.models import Linearised, RandomFeatures
from gnflow.theory import Evidence, Verdict, verify
from gnflow.theory._hypotheses import is_linear
from gnflow.theory._kernel_dynamics import KernelDynamics, _Kernel, _Law

TRAIN, TEST, LOSS = "the last residual", "the last outputs", "log L"


def features():
    return RandomFeatures.of(mean_field(width=16))


def damped(value):
    return GaussNewtonFlow("identity", Constant(value))


CASES = {
    "gradient, random features": (GradientFlow(), features),
    "gauss-newton, output layer": (Frozen(GaussNewtonFlow("hessian", SmallestEigenvalue(1.0))), mean_field),
    "spectral, linearised": (SpectralFlow(0.5, Constant(0.01)), lambda: Linearised(mean_field())),
}


@pytest.mark.parametrize(
    "case", [c if c.startswith("gauss") else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_linear_models_follow_the_closed_form(case):
    flow, make = CASES[case]
    solver = "exponential" if isinstance(flow, GradientFlow) else "dopri8"
    certificate = verify(run(flow, model=make(), rtol=1e-6, solver=solver), KernelDynamics())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert all(check.rigorous for check in certificate.checks)
    assert len(certificate.claims) == 3
    # rtol times the steps, and times what the slowest mode's share of the first residual was larger than of the last.
    assert max(claim.tolerance for claim in certificate.claims) < 2e-3


def inverse(mobility=1.0):
    """mobility/(lam + eps); the damping is the law's own."""
    return InverseGain(metric=IdentityMetric(), damping=Constant(0.0), mobility=mobility)


def test_the_rates_of_every_law():
    """m lam (c lam + eps)^-s / N; nothing for a mode below the cut-off, but in gradient flow."""
    lam = np.array([0.5, 2.0])
    np.testing.assert_allclose(_Law(4, ConstantGain(mobility=3.0)).rates(lam, 0.0, 9.0), 3 * lam / 4)
    damped = _Law(4, inverse(3.0), scale=2.0, damping=0.1)
    np.testing.assert_allclose(damped.rates(lam, 0.2, 0.0), 3 * lam / (2 * lam + 0.3) / 4)
    np.testing.assert_allclose(
        _Law(4, PowerGain(power=0.5, damping=Constant(0.0))).rates(lam, 0.0, 1.0), [0.0, 2**0.5 / 4]
    )


@pytest.fixture(scope="module")
def trajectory():
    return run(damped(1e-3), model=features(), rtol=1e-7)


def test_the_closed_form_is_that_of_the_dense_jacobian(trajectory):
    """Rates and test outputs from J itself, with a pseudo-inverse."""
    kernel = _Kernel.of(Evidence(trajectory))
    problem, model = trajectory.problem, trajectory.initial_model
    train, test = jacobian(model, problem.x_train), jacobian(model, problem.x_test)
    lam, modes = np.linalg.eigh(train @ train.T)
    np.testing.assert_allclose(kernel.rates, lam / (lam + 1e-3) / 4, rtol=1e-8)
    start = (jax.vmap(model)(problem.x_train) - problem.y_train).reshape(-1)
    expected = modes @ (np.exp(-kernel.rates * 3.0) * (modes.T @ start))
    np.testing.assert_allclose(kernel.residual(3.0), expected, rtol=0, atol=1e-11)
    change, error = kernel.change_elsewhere(3.0, test @ train.T)
    np.testing.assert_allclose(change, test @ np.linalg.pinv(train) @ (expected - start), rtol=0, atol=1e-10)
    assert error < 1e-9


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_rate_that_is_wrong_by_a_hundredth_violates_it(trajectory, factor):
    assert verify(trajectory, KernelDynamics()).verdict == Verdict.HOLDS
    certificate = KernelDynamics().certify(as_if(trajectory, lambda rerun: slowed(rerun, factor)))
    assert certificate.verdict == Verdict.VIOLATED
    (name,) = failing(certificate)
    assert name.startswith(LOSS)
    assert verify(slowed(trajectory, factor), KernelDynamics()).verdict == Verdict.VIOLATED


def nudged(trajectory, change):
    model = eqx.tree_at(lambda m: m.output_weight, trajectory.model, trajectory.model.output_weight + change)
    return dataclasses.replace(trajectory, model=model)


def test_weights_that_the_training_outputs_do_not_see(trajectory):
    """A nudge in the kernel of J moves the test outputs only; any other one both."""
    _, _, right = np.linalg.svd(jacobian(trajectory.model, trajectory.problem.x_train))
    for direction, expected in ((right[-1], [TEST]), (right[0], [TRAIN, TEST])):
        moved = functools.partial(nudged, change=1e-2 * direction.reshape(16, 2))
        assert verify(moved(trajectory), KernelDynamics()).verdict == Verdict.VIOLATED
        certificate = KernelDynamics().certify(as_if(trajectory, moved))
        assert certificate.verdict == Verdict.VIOLATED
        names = failing(certificate)
        assert len(names) == len(expected)
        assert all(name.startswith(start) for name, start in zip(names, expected, strict=True))


def test_a_constant_that_is_halved_is_seen(trajectory, monkeypatch):
    true = _Law.rates
    monkeypatch.setattr(_Law, "rates", lambda law, lam, change, cutoff: true(law, lam, change, cutoff) / 2)
    certificate = verify(trajectory, KernelDynamics())
    assert certificate.verdict == Verdict.VIOLATED
    assert {name[:5] for name in failing(certificate)} >= {LOSS, TRAIN[:5]}


def test_a_loose_tolerance_excuses_nothing():
    rough = run(damped(1e-3), model=features(), rtol=3e-2, solver="dopri8")
    assert verify(rough, KernelDynamics()).verdict == Verdict.HOLDS
    assert verify(slowed(rough, 0.99), KernelDynamics()).verdict != Verdict.HOLDS


def test_a_network_is_refused_with_its_nonlinearity():
    certificate = verify(run(GradientFlow(), stop=None, t1=1.0, solver="tsit5"), KernelDynamics())
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "linear" in certificate.reason
    assert certificate.checks[-1].value > 1e-3
    assert certificate.claims == ()


def test_a_network_that_hardly_moves_is_refused_as_well(trajectory):
    """f is linear to a hundred thousandth there, and is not linear."""
    start = mean_field(width=16)
    end = jax.tree.map(lambda leaf: leaf * (1 + 1e-5) if eqx.is_inexact_array(leaf) else leaf, start)
    lazy = dataclasses.replace(trajectory, initial_model=start, model=end)
    certificate = verify(lazy, KernelDynamics())
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert 1e-7 < certificate.checks[-1].value < 1e-4


def test_linear_by_structure_or_not():
    problem, flow = make_problem(), GradientFlow()
    linear = [
        (flow, features()),
        (flow, Linearised(mean_field())),
        (Frozen(flow), mean_field()),
        (Frozen(flow), mlp()),
    ]
    for dynamics, model in linear:
        system = dynamics.system(problem, model)
        assert is_linear(system, system.weights(model))
    others = [
        (flow, mean_field()),
        (flow, mlp()),
        (Frozen(flow, "hidden"), mean_field()),
        (Frozen(flow, "hidden"), mlp()),
    ]
    for dynamics, model in others:
        system = dynamics.system(problem, model)
        assert not is_linear(system, system.weights(model))


@pytest.mark.slow
def test_damping_that_changes_is_refused(trajectory):
    lifted = GaussNewtonFlow("identity", Exponential(1e-2, 1.0, 1e-3))
    certificate = verify(dataclasses.replace(trajectory, flow=lifted), KernelDynamics())
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "eps is constant" in certificate.reason


def test_other_losses_and_steps_are_refused(trajectory):
    huber = dataclasses.replace(trajectory, problem=make_problem(loss=gn.losses.HuberLoss()))
    assert "squared loss" in verify(huber, KernelDynamics()).reason
    steps = gn.iterate(make_problem(), features(), GradientFlow(), step_size=0.1, num_steps=3)
    assert "continuous" in verify(steps, KernelDynamics()).reason


def test_without_test_data(trajectory):
    problem = gn.Problem(trajectory.problem.x_train, trajectory.problem.y_train)
    certificate = verify(dataclasses.replace(trajectory, problem=problem), KernelDynamics())
    assert certificate.verdict == Verdict.HOLDS
    assert len(certificate.claims) == 2


@pytest.mark.slow
def test_a_repeated_sample_with_two_targets_does_not_reach_them():
    """A is singular, and so known only up to rounding: gradient flow does not mind."""
    problem = make_problem()
    twice = gn.Problem(problem.x_train[jnp.array([0, 0, 1, 2])], problem.y_train)
    trajectory = run(GradientFlow(), problem=twice, model=features(), stop=None, t1=400.0, rtol=1e-6)
    certificate = verify(trajectory, KernelDynamics())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert abs(certificate.constants["sigma_min"]) < 1e-14
    assert float(trajectory.data.train_loss[-1]) > 0.03


LAWS = {
    "gradient": _Law(6, ConstantGain(mobility=3.0)),
    "undamped": _Law(6, inverse()),
    "damped": _Law(6, inverse(), 0.5, 0.01),
    "spectral": _Law(6, PowerGain(power=0.5, damping=Constant(0.0))),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("time", [0.5, 30.0])
def test_the_bound_of_what_an_error_of_the_gram_matrix_does(name, time):
    """Against random errors of its norm, and the worst of them found by following the gradient of what they do."""
    rng, error = np.random.default_rng(3), 1e-7
    modes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    gram = modes @ np.diag([1e-4, 1.1e-4, 1e-2, 0.1, 0.1, 1.0]) @ modes.T
    root, residual = np.linalg.cholesky(gram), rng.normal(size=6)
    cross = rng.normal(size=(3, 6)) @ root.T
    kernel = _Kernel(gram, residual, LAWS[name], error)
    exact_residual = kernel.residual(time)
    exact_change, change_bound = kernel.change_elsewhere(time, cross)
    bound = kernel.residual_error(time)
    found, found_change = 0.0, 0.0
    for _ in range(300):
        noise = rng.normal(size=(6, 6))
        # Errors along pairs of modes are where the bound is tight.
        noise = noise + noise.T if rng.random() < 0.5 else modes @ np.diag(rng.choice([0, 0, 1], 6)) @ modes.T
        size = np.linalg.norm(noise)
        if size == 0:
            continue
        other = _Kernel(gram + error * noise / size, residual, LAWS[name], 0.0)
        found = max(found, float(np.linalg.norm(other.residual(time) - exact_residual)))
        change, _ = other.change_elsewhere(time, cross)
        found_change = max(found_change, float(np.linalg.norm(change - exact_change)))
    rounding = 1e-11
    assert found <= bound * (1 + 1e-3) + rounding
    assert found_change <= change_bound * (1 + 1e-3) + rounding
    assert name == "undamped" or found > 0.02 * bound  # the bound says something
    assert found_change > 0.02 * change_bound
