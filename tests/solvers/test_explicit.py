"""Explicit solvers that notice when stability limits their steps."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gnflow as gn
from gnflow.flows import GaussNewtonFlow, GradientFlow
from gnflow.geometry.damping import Constant
from gnflow.solvers import ExplicitRungeKutta
from gnflow.solvers._explicit import stability_polynomial

METHODS = {"tsit5": diffrax.Tsit5, "dopri5": diffrax.Dopri5, "dopri8": diffrax.Dopri8}


def decays(time, y, rates):
    return -rates * y


def stepped(solver, length, rates, number=1, y=None):
    """States of y and of the solver after so many steps of y' = -rates y."""
    term, y = diffrax.ODETerm(decays), jnp.ones(len(rates)) if y is None else y
    state = solver.init(term, 0.0, length, y, rates)
    for _ in range(number):
        y, error, _, state, _ = solver.step(term, 0.0, length, y, rates, state, False)
    return y, error, state


@pytest.mark.parametrize("method", METHODS.values())
def test_the_polynomial_is_what_a_step_does(method):
    z = np.asarray([0.3, 2.0, 7.0])
    y, _, _ = stepped(ExplicitRungeKutta(method()), 1.0, jnp.asarray(z))
    np.testing.assert_allclose(y, np.polyval(stability_polynomial(method().tableau)[::-1], -z), rtol=1e-8)


@pytest.mark.parametrize("method", [*METHODS.values(), diffrax.Bosh3, diffrax.Heun])
def test_beyond_the_limit_a_mode_grows(method):
    solver = ExplicitRungeKutta(method())
    z = jnp.asarray([0.999, 1.001]) * solver.stability_limit
    below, above = stepped(solver, 1.0, z)[0]
    assert abs(below) < 1 < abs(above)


def test_limits_that_are_known():
    """Of Tsit5 in the source of OrdinaryDiffEq.jl, of Dopri5 in Hairer and Wanner's book."""
    assert ExplicitRungeKutta(diffrax.Tsit5()).stability_limit == pytest.approx(3.5068, abs=2e-3)
    assert ExplicitRungeKutta(diffrax.Dopri5()).stability_limit == pytest.approx(3.3066, abs=2e-3)


@pytest.mark.parametrize("method", METHODS.values())
def test_steps_are_the_methods_own(method):
    rates = jnp.logspace(-1, 1, 5)
    own = method()
    term = diffrax.ODETerm(decays)
    state = own.init(term, 0.0, 0.1, jnp.ones(5), rates)
    expected = own.step(term, 0.0, 0.1, jnp.ones(5), rates, state, False)
    y, error, after = stepped(ExplicitRungeKutta(method()), 0.1, rates)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(error, expected[1])
    np.testing.assert_allclose(after.velocity, -rates * y, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS.values())
def test_the_rate_of_the_fastest_mode_is_seen(method):
    """Behind steps at the limit of stability the fast mode is most of the error."""
    solver = ExplicitRungeKutta(method())
    rates = jnp.asarray([1.0, 10.0, 1e3])
    _, _, state = stepped(solver, solver.stability_limit / 1e3, rates, number=5)
    assert float(state.rate) == pytest.approx(1e3, rel=0.05)
    assert int(state.num_limited) == 5
    assert bool(solver.report(state).is_limited)
    assert "stiff" in solver.doubts(state)
    assert solver.stats(state) == {"num_limited_steps": 5}


@pytest.mark.parametrize("method", METHODS.values())
def test_steps_that_are_short_for_all_modes_are_not_limited(method):
    solver = ExplicitRungeKutta(method())
    _, _, state = stepped(solver, 0.5 * solver.stability_limit, jnp.asarray([0.1, 1.0]), number=9)
    assert not bool(solver.report(state).is_limited)
    assert solver.doubts(state) == ""


def test_a_few_limited_steps_are_forgotten():
    solver, term = ExplicitRungeKutta(diffrax.Tsit5()), diffrax.ODETerm(decays)
    y, rates = jnp.ones(2), jnp.asarray([1.0, 1e3])
    long, short = solver.stability_limit / 1e3, 0.1 * solver.stability_limit / 1e3
    state, found = solver.init(term, 0.0, long, y, rates), []
    for length in [*8 * [long], *4 * [short]]:
        y, _, _, state, _ = solver.step(term, 0.0, length, y, rates, state, False)
        found.append(bool(state.report.is_limited))
    assert found == [*4 * [False], *7 * [True], False]


def test_points_that_differ_by_rounding_alone_tell_nothing():
    y, _, state = stepped(ExplicitRungeKutta(diffrax.Tsit5()), 1e-9, jnp.asarray([1.0, 2.0]), y=jnp.asarray([1e3, 1e3]))
    assert float(state.rate) == 0.0
    assert np.all(np.isfinite(y))


def test_velocities_are_counted():
    solver = ExplicitRungeKutta(diffrax.Tsit5())
    assert int(solver.report(stepped(solver, 0.1, jnp.ones(1))[2]).num_velocities) == 7
    assert int(solver.report(stepped(solver, 0.1, jnp.ones(1), number=2)[2]).num_velocities) == 6


@pytest.mark.parametrize("method", [diffrax.Euler(), diffrax.KenCarp4(), 5])
def test_what_has_no_tableau_of_its_own_is_refused(method):
    with pytest.raises(gn.ConfigError, match=r"diffrax\.Tsit5\(\)"):
        ExplicitRungeKutta(method)


def small(damping):
    key = jax.random.key(1)
    problem = gn.problems.teacher_student(20, 5, input_dim=2, teacher_width=2, key=key)
    model = gn.models.MeanFieldNetwork(input_dim=2, width=50, key=key)
    return problem, model, GaussNewtonFlow(damping=damping)


@pytest.mark.slow
def test_a_tight_gauss_newton_flow_with_much_damping_is_stiff():
    """Rates sigma/(sigma + eps) spread as the spectrum does where eps is large: Dopri8 alone would take thousands of steps."""
    found = gn.simulate(*small(Constant(1.0)), stop=gn.RelativeLoss(1e-8), rtol=1e-5)
    assert found.stats["solver"] == "dopri8, then exponential"
    assert "stability limits" in found.stats["solver_reason"]
    assert found.stats["num_steps"] < 500
    assert found.stats["estimated_error"] < found.stats["promised_error"]


@pytest.mark.slow
def test_a_tight_gauss_newton_flow_with_little_damping_is_not():
    found = gn.simulate(*small(gn.damping.SmallestEigenvalue()), stop=gn.RelativeLoss(1e-8), rtol=1e-5)
    assert found.stats["solver"] == "dopri8"
    assert found.stats["num_limited_steps"] == 0


def test_a_run_of_a_stiff_flow_says_so():
    problem, model, _ = small(Constant(1.0))
    options = {"stop": gn.RelativeLoss(1e-8), "throw": False, "max_steps": 300}
    stiff = gn.simulate(problem, model, GradientFlow(), solver="tsit5", **options)
    assert "stiff for an explicit solver: stability holds its steps below 3.5" in stiff.result.message
    assert stiff.stats["num_limited_steps"] > 100
    tight = gn.simulate(problem, model, GradientFlow(), solver="tsit5", rtol=1e-12, **options)
    assert "stiff" not in tight.result.message
