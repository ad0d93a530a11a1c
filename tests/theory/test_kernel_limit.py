"""The kernel limit: test outputs follow the first kernel within R; two flows end alike where the kernel does not move."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from facts.recording import jacobian, make_problem, mean_field
from theory.runs import run, single_sample

import gnflow as gn
from gnflow.flows import AbstractFlow, Frozen, GradientFlow, SpectralFlow
from gnflow.models import Linearised
from gnflow.simulate import simulate_once
from gnflow.theory import Evidence, Verdict, _kernel_limit as module, _movement
from gnflow.theory._kernel_limit import KernelLimit
from gnflow.theory._movement import interpolation_operator

# Gradient flow and undamped Gauss-Newton flow with H = I, as two members of one family: they share compiled programs.
GRADIENT, GAUSS_NEWTON = SpectralFlow(0.0), SpectralFlow(1.0)
ALONE = "the test outputs follow the first kernel within R"
APART = "the two flows' test outputs"
TIGHT = {"rtol": 1e-6, "solver": "tsit5"}


pytestmark = pytest.mark.slow  # runs of its own, many of them


class Decay(AbstractFlow):
    """w' = -w, which is no -J^T a."""

    def velocity_and_diagnostics(self, time, weights, system):
        return jax.tree.map(lambda w: -w, weights), None


@pytest.fixture(autouse=True)
def explicit_solver(monkeypatch):
    """For the other flow too: it compiles in a third of the time."""
    monkeypatch.setattr(module, "simulate_once", functools.partial(simulate_once, solver="tsit5"))


def certify(trajectory, other=None):
    return KernelLimit(other).certify(Evidence(trajectory))


def nudged(trajectory, size):
    """The run with its end moved in a random direction by `size` times the weights."""
    system = trajectory.flow.system(trajectory.problem, trajectory.model)
    weights = system.weights(trajectory.model)
    leaves, tree = jax.tree.flatten(weights)
    moved = [w + size * jnp.abs(w).max() * jr.normal(jr.key(i), w.shape) for i, w in enumerate(leaves)]
    return dataclasses.replace(trajectory, model=system.model(jax.tree.unflatten(tree, moved)))


@pytest.fixture(scope="module")
def kernel_regime():
    return run(GRADIENT, model=Linearised(mean_field(width=16)), stop=gn.RelativeLoss(1e-8), **TIGHT)


@pytest.fixture(scope="module")
def features_move():
    return run(GRADIENT, model=mean_field(width=16), **TIGHT)


@pytest.fixture(scope="module")
def one_test_point():
    """One output in all: the integrand has one sign, and the bound is the distance itself."""
    sample = single_sample()
    problem = gn.Problem(sample.x_train, jnp.array([1.0]), jnp.array([[-0.2, 0.6]]), jnp.array([0.5]))
    return run(GradientFlow(), problem=problem, model=mean_field(num_outputs=1), **TIGHT)


def test_in_the_kernel_regime_both_flows_generalise_alike(kernel_regime):
    certificate = certify(kernel_regime, GAUSS_NEWTON)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert [claim.verdict for claim in certificate.claims] == [Verdict.HOLDS] * 3
    constants = certificate.constants
    for whose in ("", ", other flow"):
        assert constants[f"R/movement{whose}"] < 1e-12
        assert constants[f"kernel distance{whose}"] < 1e-12
    # What is left is what the two have not yet learned.
    assert constants["difference of the test outputs/their movement"] < 1e-3
    np.testing.assert_allclose(
        constants["its bound/their movement"], constants["difference of the test outputs/their movement"], rtol=1e-6
    )


def test_where_features_move_they_do_not(features_move):
    certificate = certify(features_move, GAUSS_NEWTON)
    constants = certificate.constants
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert constants["difference of the test outputs/their movement"] > 0.02
    assert constants["relative NTK change"] > 1


def with_a_nudged_end(trajectory):
    """The evidence of a run if the flow had ended elsewhere."""
    evidence = Evidence(trajectory)
    evidence._kept["movement"] = nudged(_movement.movement_run(evidence), 1e-2)
    vars(evidence)["replicate"] = nudged(evidence.replicate, 1e-2)
    return evidence


def test_an_end_that_was_nudged_is_violated(kernel_regime):
    certificate = KernelLimit().certify(with_a_nudged_end(kernel_regime))
    assert certificate.verdict == Verdict.VIOLATED
    assert ALONE in certificate.reason


@pytest.mark.parametrize("error_norm", ["function", "weights"])
def test_a_record_whose_end_was_nudged_is_violated(kernel_regime, error_norm):
    """Whatever it says that its steps were judged by."""
    settings = kernel_regime.settings | {"error_norm": error_norm}
    certificate = certify(dataclasses.replace(nudged(kernel_regime, 1e-2), settings=settings))
    assert certificate.verdict == Verdict.VIOLATED, str(certificate)
    assert "the training loss is that of the stored weights" in certificate.reason


def test_two_ends_that_do_not_belong_together(kernel_regime, monkeypatch):
    """The other flow ends elsewhere, though both follow the same kernel."""
    true = module._other_evidence

    def elsewhere(evidence, flow):
        return evidence.once("elsewhere", lambda: with_a_nudged_end(true(evidence, flow).trajectory))

    monkeypatch.setattr(module, "_other_evidence", elsewhere)
    certificate = certify(kernel_regime, GAUSS_NEWTON)
    violated = {claim.name for claim in certificate.claims if claim.verdict == Verdict.VIOLATED}
    assert f"{ALONE} along the other flow" in violated
    assert any(APART in name for name in violated)


def test_a_bound_that_is_halved_is_violated(one_test_point, monkeypatch):
    whole = certify(one_test_point)
    assert whole.verdict == Verdict.HOLDS, str(whole)
    true = module.mode_bound

    def halved(*arguments):
        integral = true(*arguments)
        changes = {name: getattr(integral, name) / 2 for name in ("low", "high", "value", "estimate")}
        return dataclasses.replace(integral, **changes)

    monkeypatch.setattr(module, "mode_bound", halved)
    certificate = certify(one_test_point)
    assert certificate.verdict == Verdict.VIOLATED, str(certificate)


def test_too_few_times_to_bound_the_integral(one_test_point, monkeypatch):
    monkeypatch.setattr(_movement, "_NUM_TIMES", 3)
    assert certify(one_test_point).verdict == Verdict.UNDECIDED


def test_what_is_refused(kernel_regime):
    problem = kernel_regime.problem
    no_test = gn.Problem(problem.x_train, problem.y_train)
    refusals = {
        "test inputs": (dataclasses.replace(kernel_regime, problem=no_test), None),
        "form w' = -J^T a": (dataclasses.replace(kernel_regime, flow=Decay()), None),
        "the other flow has the form": (kernel_regime, Decay()),
        "moves the same weights": (kernel_regime, Frozen(GAUSS_NEWTON, "weights.output_weight")),
        "continuous": (gn.iterate(problem, kernel_regime.model, GradientFlow(), step_size=0.1, num_steps=2), None),
    }
    for reason, (trajectory, other) in refusals.items():
        certificate = certify(trajectory, other)
        assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
        assert reason in certificate.reason
        assert certificate.claims == ()


def test_a_singular_gram_matrix_cannot_be_told_from_a_regular_one(kernel_regime):
    problem = kernel_regime.problem
    twice = gn.Problem(problem.x_train[jnp.array([0, 0, 1, 2])], problem.y_train, problem.x_test, problem.y_test)
    certificate = certify(dataclasses.replace(kernel_regime, problem=twice))
    assert certificate.verdict == Verdict.UNDECIDED
    assert "sigma_min(A_0) > 0" in certificate.reason


def test_the_operator_of_the_kernel():
    """K(x, X) A^-1 from the whole Jacobian."""
    problem, model = make_problem(), mean_field(width=16)
    system = GradientFlow().system(problem, model)
    train, test = (jacobian(model, x) for x in (problem.x_train, problem.x_test))
    expected = test @ train.T @ np.linalg.inv(train @ train.T)
    found = interpolation_operator(system, system.weights(model))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
