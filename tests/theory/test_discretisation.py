"""First order of explicit Euler: where it holds, where the theorem does not apply, and where the steps are tampered with."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import equinox_mlp, make_problem, mean_field, mlp

import gnflow as gn
from gnflow.theory import Verdict, _discretisation as module, verify
from gnflow.theory._discretisation import Discretisation, ModifiedEquation, logarithm_coefficients
from gnflow.theory._hypotheses import smooth_velocity

TAU = 2.0
GRADIENT = gn.flows.GradientFlow()
GAUSS_NEWTON = gn.flows.GaussNewtonFlow("hessian", damping=gn.damping.Constant(0.05))
THEOREM = Discretisation(halvings=4)


@pytest.fixture(scope="module")
def problem():
    return make_problem()


@pytest.fixture(scope="module")
def gradient_run(problem):
    return gn.simulate(problem, mean_field(), GRADIENT, t1=TAU, stop=None, saveat=[1.0])


@pytest.fixture(scope="module")
def certificate(gradient_run):
    return verify(gradient_run, THEOREM)


def claim(certificate, start):
    (found,) = [c for c in certificate.claims if c.name.startswith(start)]
    return found


def test_gradient_descent_is_first_order(certificate):
    assert certificate.verdict == Verdict.HOLDS
    assert all(c.verdict == Verdict.HOLDS for c in certificate.claims)
    order = claim(certificate, "order")
    assert abs(order.observed - 1) < 0.01
    assert order.tolerance < 0.02
    assert claim(certificate, "error of the finest").tolerance < 1e-3
    constants = certificate.constants
    assert constants["end time T"] == TAU
    assert constants["finest step size"] == constants["largest step size"] / 16
    assert "slack" in certificate.to_json()
    assert certificate.plot().axes


@pytest.mark.slow
def test_gauss_newton_is_first_order(problem):
    run = gn.simulate(problem, mean_field(), GAUSS_NEWTON, t1=TAU, stop=None, saveat=[1.0])
    certificate = verify(run, Discretisation())
    assert certificate.verdict == Verdict.HOLDS
    assert abs(claim(certificate, "order").observed - 1) < 0.05


def test_gradient_descent_with_weight_decay_is_first_order(problem):
    """It is true of any smooth flow; the fastest rate is that of the modes with the largest of the weights' own."""
    flow = gn.flows.WeightDecay(GRADIENT, {"hidden": 0.3, "output": 2.0})
    run = gn.simulate(problem, mean_field(), flow, t1=TAU, stop=None, saveat=[1.0])
    certificate = verify(run, THEOREM)
    assert certificate.verdict == Verdict.HOLDS
    assert abs(claim(certificate, "order").observed - 1) < 0.02
    plain = verify(dataclasses.replace(run, flow=GRADIENT), THEOREM)
    faster = certificate.constants["fastest rate"] - plain.constants["fastest rate"]
    np.testing.assert_allclose(faster, 2.0)


def test_constant_against_the_variational_equation(problem, gradient_run, certificate):
    # e_1' = F'(w) e_1 - F'(w) F(w)/2 by the classical Runge-Kutta method on the velocity itself.
    system = GRADIENT.system(problem, gradient_run.initial_model)
    weights = system.weights(gradient_run.initial_model)

    def rates(state):
        place, error = state
        velocity = GRADIENT.velocity(0.0, place, system)
        direction = jax.tree.map(lambda e, v: e - v / 2, error, velocity)
        return velocity, jax.jvp(lambda w: GRADIENT.velocity(0.0, w, system), (place,), (direction,))[1]

    def add(state, factor, change):
        return jax.tree.map(lambda a, b: a + factor * b, state, change)

    h = TAU / 100

    @jax.jit
    def solve(state):
        def step(_, state):
            k1 = rates(state)
            k2 = rates(add(state, h / 2, k1))
            k3 = rates(add(state, h / 2, k2))
            k4 = rates(add(state, h, k3))
            return jax.tree.map(lambda s, a, b, c, d: s + h / 6 * (a + 2 * b + 2 * c + d), state, k1, k2, k3, k4)

        return jax.lax.fori_loop(0, 100, step, state)

    _, error = solve((weights, jax.tree.map(jnp.zeros_like, weights)))
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(error)))
    np.testing.assert_allclose(certificate.constants["C = ||e_1||, from the modified equation"], norm, rtol=1e-4)


def test_modified_equation_of_a_scalar_decay():
    # log(1 - x)/h for w' = -w with x = h: its truncations are -(1 + x/2 + x^2/3 + x^3/4).
    x, terms = 0.1, (1, 1 / 2, 1 / 3, 1 / 4)
    for order in range(4):
        series = -sum(c * x**k for k, c in enumerate(terms[: order + 1]))
        steps = -np.array([(1 - x) ** j for j in range(4)])
        np.testing.assert_allclose(logarithm_coefficients(order) @ steps, series, rtol=1e-12)


def test_modified_equation_to_second_order(problem):
    # F - (h/2) F'F, which needs the derivative of the velocity and nothing of the difference operator.
    system = GRADIENT.system(problem, mean_field())
    h = 1e-4

    @jax.jit
    def velocities(weights):
        velocity = GRADIENT.velocity(0.0, weights, system)
        change = jax.jvp(lambda w: GRADIENT.velocity(0.0, w, system), (weights,), (velocity,))[1]
        return ModifiedEquation(GRADIENT, h, 1).velocity(0.0, weights, system), velocity, change

    modified, velocity, change = velocities(system.weights(mean_field()))
    for m, v, c in zip(*(jax.tree.leaves(t) for t in (modified, velocity, change)), strict=True):
        np.testing.assert_allclose((m - v) / h, -c / 2, atol=1e-3 * float(jnp.max(jnp.abs(c))))


def _moved(run, fraction):
    """The run with its last weights moved along their displacement from the start."""
    first, last = (eqx.filter(m, eqx.is_inexact_array) for m in (run.initial_model, run.model))
    moved = jax.tree.map(lambda a, b: b + fraction * (b - a), first, last)
    return dataclasses.replace(run, model=eqx.combine(moved, run.model))


def _half_order(problem, model, flow, *, step_size, **options):
    return _moved(gn.iterate(problem, model, flow, step_size=step_size, **options), 0.3 * np.sqrt(step_size))


def _biased(problem, model, flow, **options):
    return _moved(gn.iterate(problem, model, flow, **options), 0.01)


def _larger_constant(problem, model, flow, *, step_size, **options):
    return _moved(gn.iterate(problem, model, flow, step_size=step_size, **options), 0.1 * step_size)


class _Midpoint(eqx.Module):
    """The explicit midpoint rule's increment as a velocity: second order in the step."""

    flow: gn.flows.GradientFlow
    step: jax.Array

    def __call__(self, time, weights, system):
        middle = jax.tree.map(lambda w, v: w + self.step / 2 * v, weights, self.flow.velocity(time, weights, system))
        return self.flow.velocity(time, middle, system)


class _MidpointFlow(gn.flows.AbstractFlow):
    rule: _Midpoint

    def velocity_and_diagnostics(self, time, weights, system):
        return self.rule(time, weights, system), None


def _second_order(problem, model, flow, *, step_size, **options):
    rule = _MidpointFlow(_Midpoint(flow, jnp.asarray(step_size)))
    return gn.iterate(problem, model, rule, step_size=step_size, **options)


@pytest.mark.parametrize("tampered", [_half_order, _biased, _second_order, _larger_constant])
def test_other_steps_are_caught(gradient_run, monkeypatch, tampered):
    monkeypatch.setattr(module, "iterate", tampered)
    certificate = verify(gradient_run, THEOREM)
    assert certificate.verdict == Verdict.VIOLATED
    if tampered is not _larger_constant:  # which is of first order
        assert claim(certificate, "order").verdict == Verdict.VIOLATED


def test_another_reference_is_caught(gradient_run, monkeypatch):
    def slower(problem, model, flow, *, t1, saveat, **options):
        return gn.simulate(problem, model, flow, t1=0.99 * t1, saveat=[0.99 * t1], **options)

    monkeypatch.setattr(module, "simulate_once", slower)
    assert verify(gradient_run, THEOREM).verdict == Verdict.VIOLATED


def test_steps_too_large_to_tell(gradient_run, certificate):
    largest = 1.9 / certificate.constants["fastest rate"]
    coarse = verify(gradient_run, Discretisation(halvings=2, step_size=largest))
    assert coarse.verdict == Verdict.UNDECIDED


def test_unstable_steps_are_refused(gradient_run, certificate):
    largest = 2.5 / certificate.constants["fastest rate"]
    refused = verify(gradient_run, Discretisation(end_time=10 * largest, step_size=largest))
    assert refused.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "the largest step is stable" in refused.reason


def test_a_kinked_activation_is_refused(gradient_run):
    run = dataclasses.replace(gradient_run, initial_model=mean_field(activation="relu"))
    refused = verify(run, THEOREM)
    assert refused.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "relu" in refused.reason
    assert not refused.claims


def test_discrete_runs_are_refused(problem):
    run = gn.iterate(problem, mean_field(), GRADIENT, step_size=0.1, num_steps=3)
    assert "continuous" in verify(run, THEOREM).reason


def test_models_of_the_user_need_a_promise(gradient_run):
    model = equinox_mlp()
    run = dataclasses.replace(gradient_run, problem=make_problem(num_outputs=1), initial_model=model, model=model)
    unknown = verify(run, THEOREM)
    assert unknown.verdict == Verdict.UNDECIDED
    assert "smooth" in unknown.reason
    promised = dataclasses.replace(THEOREM, smooth=True).hypotheses(gn.theory.Evidence(run))
    assert all(check.met for check in promised.checks)


def test_kinks_in_layers_that_do_not_move_do_no_harm(gradient_run):
    relu = mean_field(activation="relu")
    flow = gn.flows.Frozen(GRADIENT, "output")
    run = dataclasses.replace(gradient_run, initial_model=relu, model=relu, flow=flow)
    assert all(check.met for check in THEOREM.hypotheses(gn.theory.Evidence(run)).checks)


def test_kinks_do_no_harm_in_any_model_that_is_linear_in_what_moves():
    problem = make_problem()
    linear = [
        (mlp(activation="relu"), gn.flows.Frozen(GRADIENT, "output")),
        (mean_field(activation="relu"), gn.flows.Frozen(GRADIENT, ("output_weight",))),
        (gn.models.RandomFeatures.of(mean_field(activation="relu")), GRADIENT),
    ]
    for model, flow in linear:
        assert smooth_velocity(problem, model, flow).met, flow
    for model, flow in (
        (mlp(activation="relu"), GRADIENT),
        (mlp(activation="relu"), gn.flows.Frozen(GRADIENT, "hidden")),
    ):
        assert not smooth_velocity(problem, model, flow).met


def test_damping_that_may_switch_is_not_known_to_be_smooth():
    for damping, known in ((gn.damping.Constant(0.05), True), (gn.damping.SmallestEigenvalue(1.0, floor=1e-3), False)):
        check = smooth_velocity(make_problem(), mean_field(), gn.flows.GaussNewtonFlow("hessian", damping))
        assert check.met
        assert check.rigorous is known


def test_long_runs_are_cut_to_the_budget(problem, gradient_run):
    evidence = gn.theory.Evidence(gradient_run)
    rate = THEOREM.hypotheses(evidence).constants["fastest rate"]
    fallen = evidence.log_excess[0] - evidence.log_excess
    cut = dataclasses.replace(THEOREM, max_steps=256, step_size=TAU / 40).hypotheses(evidence).constants
    assert rate > 0
    assert cut["end time of the run"] == TAU
    assert cut["end time T"] < TAU
    assert cut["end time T"] / cut["finest step size"] <= 256 * (1 + 1e-12)
    assert fallen[-1] > 1  # so that there is a time at which the loss has fallen by e


@pytest.mark.parametrize(
    "arguments",
    [
        {"halvings": 1},
        {"max_steps": 100},
        {"step_size": -0.1},
        {"end_time": float("inf")},
        {"rtol": 0.0},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(gn.ConfigError):
        Discretisation(**arguments)


def test_a_run_that_rests_shows_nothing(gradient_run):
    problem = gradient_run.problem
    model = gradient_run.initial_model
    solved = gn.Problem(problem.x_train, jax.vmap(model)(problem.x_train), problem.x_test, problem.y_test)
    assert verify(dataclasses.replace(gradient_run, problem=solved), THEOREM).verdict == Verdict.UNDECIDED
