"""The a priori theorem on lazy runs, where its hypotheses hold, and on others, where it refuses."""

import dataclasses
import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import equinox_mlp, jacobian, make_problem, mean_field, mlp
from jax.flatten_util import ravel_pytree
from theory.runs import as_if, failing_record, run, slowed, tampered

import gnflow as gn
from gnflow.flows import DualGaussNewtonFlow, Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry.damping import Constant, Exponential, Schedule, SmallestEigenvalue, Spectrum
from gnflow.geometry.directions import ConjugateGradients
from gnflow.metrics import PathLength
from gnflow.models import RandomFeatures
from gnflow.theory import Evidence, Verdict
from gnflow.theory._a_priori import APriori
from gnflow.theory._reruns import Rerun


def lazy(residual=1e-6, model=None, samples=4):
    """Targets that the network nearly has at the start: the ball of the theorem is wide against the path."""
    model = mean_field(width=16) if model is None else model
    x = make_problem().x_train[:samples]
    outputs = jax.vmap(model)(x).reshape(samples, -1)
    problem = gn.Problem(x, outputs + residual * jax.random.normal(jax.random.key(1), outputs.shape))
    return {"problem": problem, "model": model}


def certify(trajectory):
    return APriori().certify(Evidence(trajectory))


def short(flow, **parts):
    """A run of one step."""
    return gn.iterate(parts["problem"], parts["model"], flow, step_size=0.1, num_steps=1)


@functools.cache
def base():
    return short(GradientFlow(), **lazy())


def at_start(flow, problem, model):
    """The evidence of a run of other parts as if it were a flow, of which only the start is looked at."""
    problem_loss = problem.loss.value(jax.vmap(model)(problem.x_train).reshape(problem.y_train.shape), problem.y_train)
    parts = {"flow": flow, "problem": problem, "initial_model": model}
    trajectory = tampered(base(), train_loss=[float(problem_loss)] * 2)
    settings = trajectory.settings | {"kind": "simulate"}
    evidence = Evidence(dataclasses.replace(trajectory, settings=settings, **parts))
    vars(evidence)["reference_rerun"] = Rerun(None, "only the start is looked at")
    return evidence


def hypotheses(flow, **parts):
    return APriori().hypotheses(at_start(flow, **parts))


def unmet(found):
    return [check.name for check in found.checks if check.met is False]


GRADIENT = pytest.param("gradient", marks=pytest.mark.slow)  # programs of its own


@pytest.fixture(scope="module")
def gauss_newton():
    """Undamped, in the metric of the Hessian: the loss falls at the rate of the theorem exactly."""
    flow = GaussNewtonFlow("hessian", Constant(0.0))
    return run(flow, **lazy(1e-4), rtol=1e-6, solver="tsit5", metrics=(PathLength(),))


@pytest.fixture(scope="module")
def gradient():
    """One sample: A is a number, and the rate on the smaller ball is nearly the true one."""
    return run(GradientFlow(), **lazy(model=mean_field(num_outputs=1), samples=1), rtol=1e-4)


def test_gauss_newton_flow(gauss_newton):
    evidence = Evidence(gauss_newton)
    certificate = APriori().certify(evidence)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert all(check.rigorous for check in certificate.checks)
    constants = certificate.constants
    np.testing.assert_allclose(constants["r"], 2.0, rtol=1e-12)
    gram = jacobian(gauss_newton.initial_model, gauss_newton.problem.x_train)
    smallest = np.linalg.eigvalsh(gram @ gram.T)[0]
    np.testing.assert_allclose(constants["R"], np.sqrt(smallest) / (2 * constants["K"]), rtol=1e-9)
    excess = float(gauss_newton.data.train_loss[0])
    # (2/(mu_H sqrt sigma_0)) sqrt(2 lambda (L_0 - L*)) (2/r), with mu_H = lambda = 1/4 and r = 2.
    length = 2 * 4 / np.sqrt(smallest) * np.sqrt(excess / 2)
    np.testing.assert_allclose(constants["length of the path, bound"], length, rtol=1e-6)
    claims = {claim.name: claim for claim in certificate.claims}
    assert any("int ||w'||" in name for name in claims)
    ends = [eqx.filter(m, eqx.is_array) for m in (evidence.reference.model, gauss_newton.initial_model)]
    distance = jnp.linalg.norm(ravel_pytree(ends[0])[0] - ravel_pytree(ends[1])[0])
    np.testing.assert_allclose(claims["||w_T - w_0|| <= R"].observed, distance, rtol=1e-12)


@pytest.mark.slow
def test_gradient_flow(gradient):
    certificate = certify(gradient)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    constants = certificate.constants
    np.testing.assert_allclose(
        constants["r"], 2 * gradient.initial_model.mobility * constants["sigma_0"] / 4, rtol=1e-7
    )
    np.testing.assert_allclose(constants["r on the smaller ball"], 4 * constants["r"], rtol=1e-3)


@pytest.mark.parametrize("kind", ["gauss_newton", GRADIENT])
def test_a_rate_slowed_by_a_hundredth(kind, request):
    trajectory = request.getfixturevalue(kind)
    certificate = APriori().certify(as_if(trajectory, lambda rerun: slowed(rerun, 0.99)))
    assert certificate.verdict == Verdict.VIOLATED, str(certificate)
    assert "L_t - L*" in certificate.reason or "smaller ball" in certificate.reason
    assert certify(slowed(trajectory, 0.99)).verdict == Verdict.VIOLATED


def test_an_end_outside_the_ball(gauss_newton):
    moved = eqx.tree_at(
        lambda m: m.output_weight, gauss_newton.model, gauss_newton.model.output_weight.at[3, 0].add(2.0)
    )
    certificate = APriori().certify(as_if(gauss_newton, lambda rerun: dataclasses.replace(rerun, model=moved)))
    assert certificate.verdict == Verdict.VIOLATED
    assert "w_T - w_0" in certificate.reason
    certificate = certify(dataclasses.replace(gauss_newton, model=moved))
    assert "a rerun at another tolerance gives the last weights (over movement)" in failing_record(certificate)


def test_a_path_that_is_too_long(gauss_newton):
    def lengthened(rerun):
        path = rerun.data.path_length.to_numpy()
        return tampered(rerun, path_length=path + np.linspace(0, 10, len(path)))

    certificate = APriori().certify(as_if(gauss_newton, lengthened))
    assert certificate.verdict == Verdict.VIOLATED
    assert "int ||w'||" in certificate.reason
    certificate = certify(lengthened(gauss_newton))
    assert certificate.verdict == Verdict.VIOLATED
    assert "the recorded path length is that of a rerun" in certificate.reason


@pytest.mark.parametrize("kind", ["gauss_newton", GRADIENT])
def test_twice_the_rate_is_seen(kind, request, monkeypatch):
    """The rate of the theorem doubled, as if mu were twice what it is."""
    module = sys.modules["gnflow.theory._a_priori"]
    true = module._regime

    def wrong(*arguments):
        regime = true(*arguments)
        return dataclasses.replace(regime, rate=2 * regime.rate)

    monkeypatch.setattr(module, "_regime", wrong)
    assert certify(request.getfixturevalue(kind)).verdict == Verdict.VIOLATED


def test_a_tolerance_that_is_claimed_to_be_coarse_excuses_nothing(gauss_newton):
    coarse = dataclasses.replace(slowed(gauss_newton, 0.99), settings=gauss_newton.settings | {"rtol": 3e-2})
    assert certify(coarse).verdict != Verdict.HOLDS


def test_at_ordinary_sizes_the_loss_is_too_large():
    certificate = APriori().certify(at_start(GaussNewtonFlow(), problem=make_problem(), model=mean_field()))
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "2/r < R" in certificate.reason
    assert certificate.constants["length of the path/R"] > 1
    assert "r on the smaller ball" not in certificate.constants


RELU = mean_field(width=16, activation="relu")
REFUSED = {
    "mu > 0": (GradientFlow(), {"problem": make_problem(loss=gn.losses.HuberLoss()), "model": mean_field()}),
    "the flow has a gain that increases": (DualGaussNewtonFlow(1.0, "exact"), lazy()),
    "K < inf": (GradientFlow(), lazy(model=RELU)),
    "eps <= a sigma_min": (GaussNewtonFlow("identity", Schedule(lambda t: 1.0 + t)), lazy()),
    "m > 0": (GradientFlow(0.0), lazy()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hypotheses_that_fail_are_named(name):
    flow, parts = REFUSED[name]
    found = hypotheses(flow, **parts)
    assert unmet(found)[0].startswith(name)


def test_the_spectral_family_is_covered():
    """Between gradient flow and Gauss-Newton flow, with the rates of both at its ends."""
    found = {power: hypotheses(SpectralFlow(power, Constant(1e-9)), **lazy()) for power in (0.0, 0.5, 1.0)}
    assert not any(map(unmet, found.values()))
    rates = {power: numbers.constants["r"] for power, numbers in found.items()}
    gradient, newton = (
        hypotheses(flow, **lazy()).constants["r"]
        for flow in (GradientFlow(1.0), GaussNewtonFlow("identity", Constant(1e-9)))
    )
    assert rates[0.0] == pytest.approx(gradient, rel=1e-6)
    assert rates[1.0] == pytest.approx(newton, rel=1e-6)
    assert rates[0.5] == pytest.approx((gradient * newton) ** 0.5, rel=1e-6)


def test_steps_are_no_flow():
    certificate = certify(short(GradientFlow(), **lazy()))
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "continuous" in certificate.reason


def test_a_metric_that_depends_on_the_outputs_is_refused():
    class Own(gn.geometry.IdentityMetric.__mro__[1]):
        def factor(self, loss, outputs, targets):
            return gn.losses.ScaledIdentity(1.0)

    found = hypotheses(GaussNewtonFlow(Own(), Constant(0.0)), **lazy())
    assert unmet(found) == ["the metric H is constant"]


def test_a_singular_start_is_undecided():
    problem = make_problem()
    twice = gn.Problem(problem.x_train[jnp.array([0, 0, 1, 2])], problem.y_train)
    found = hypotheses(GradientFlow(), problem=twice, model=mean_field())
    (check,) = [check for check in found.checks if check.met is not True]
    assert check.met is None
    assert "sigma_0" in check.name


def test_other_models_and_solvers_are_estimates():
    parts = lazy(model=mlp())
    for rtol, named in ((1e-10, []), (0.5, ["the direction is Gauss-Newton's (relative residual of the solve)"])):
        flow = GaussNewtonFlow("identity", Constant(1e-3), ConjugateGradients(rtol))
        residual = short(flow, **parts).data.relative_residual.to_numpy()
        evidence = at_start(flow, **parts)
        evidence.trajectory.data["relative_residual"] = (("step",), residual)
        found = APriori().hypotheses(evidence)
        assert unmet(found) == named
        assert sum(not check.rigorous for check in found.checks) == 3


@pytest.mark.parametrize(
    "parts", [lazy(1.0, RandomFeatures.of(mean_field(width=16))), lazy(1e-9, equinox_mlp())], ids=["linear", "generic"]
)
def test_constants_of_other_models(parts):
    found = hypotheses(GradientFlow(), **parts)
    assert not unmet(found)
    if isinstance(parts["model"], RandomFeatures):  # an infinite ball, and the rate is not quartered
        assert found.constants["R"] == np.inf
        expected = 2 / 4 * parts["model"].mobility * (found.constants["sigma_0"] - found.constants["error of sigma_0"])
        np.testing.assert_allclose(found.constants["r"], expected, rtol=1e-12)


def test_frozen_flows():
    found = hypotheses(Frozen(GradientFlow(), "hidden"), **lazy(1e-7))
    assert not unmet(found)
    assert found.constants["max_i |v_i| on the ball"] == pytest.approx(
        float(jnp.linalg.norm(mean_field(width=16).output_weight, axis=1).max())
    )


@pytest.mark.parametrize("sigma", [0.02, 0.5])
def test_damping_stays_below_its_ratio(sigma):
    """At every sigma_min above the least, and every time."""
    rules = [SmallestEigenvalue(0.7, 0.1), SmallestEigenvalue(0.0, 0.3), Constant(0.2), Exponential(0.5, 1.0, 0.1)]
    rules += [Exponential(0.1, 1.0, 0.4)]
    rng = np.random.default_rng(0)
    for rule in rules:
        ratio = rule.largest_ratio(sigma)
        found = [
            float(rule(jnp.asarray(time), Spectrum.of(jnp.asarray([value])))) / value
            for time, value in zip(
                [0.0, *rng.exponential(2.0, 50)], [sigma, *(sigma + rng.exponential(1.0, 50))], strict=True
            )
        ]
        assert max(found) == pytest.approx(ratio, rel=1e-12)
    assert Schedule(lambda t: t).largest_ratio(sigma) == np.inf
