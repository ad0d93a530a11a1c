"""The implicit solver with the low-rank linear systems."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from solvers.running import NONLINEAR, Spectrum, errors_at_fixed_steps, integrate, number, rows, slope

import gnflow as gn
from gnflow.flows import GradientFlow
from gnflow.geometry import Decomposition
from gnflow.solvers import LinearisedTerm, LowRankKvaerno5

ACCURATE = LowRankKvaerno5(iteration_rtol=1e-11)
STEPS = {"gradient": (16, 32, 64), "gauss-newton, lifted damping": (8, 16, 32)}


@pytest.mark.parametrize("name", ["gradient", pytest.param("gauss-newton, lifted damping", marks=pytest.mark.slow)])
def test_order_five(name):
    """At the end of steps; inside them Diffrax interpolates by a cubic polynomial."""
    at_end, inside = errors_at_fixed_steps(NONLINEAR[name], ACCURATE, STEPS[name])
    np.testing.assert_allclose(slope(STEPS[name], at_end), 5, atol=0.2)
    np.testing.assert_allclose(slope(STEPS[name], inside), 4, atol=0.3)


def controlled(term, solver, start, end, tolerance):
    controller = diffrax.PIDController(rtol=number(tolerance), atol=number(tolerance), pcoeff=0.2, icoeff=0.8)
    return integrate(term, solver, start, number(end), number(1e-2), None, controller)


@pytest.mark.parametrize("rank", [8, 2])
def test_the_same_solution(rank):
    """As SciPy's DOP853; also where the linear systems are solved with the leading modes only."""
    case = NONLINEAR["gradient"]
    solver = LowRankKvaerno5(Decomposition(dense_limit=0, rank=rank), iteration_rtol=1e-11)
    found = controlled(case.term, solver, case.weights, case.end, 1e-11)
    np.testing.assert_allclose(rows(found.ys)[0], case.reference(case.end), rtol=0, atol=1e-9)


def test_stiffness_limits_no_step():
    """Rates 1e8 to 1: explicit steps would be 1e8 times more, and an unstable implicit one would not decay."""
    spectrum = Spectrum([1e8, 1e4, 1.0])
    term = LinearisedTerm(spectrum.flow, spectrum.system)
    found = controlled(term, LowRankKvaerno5(), spectrum.start, 3.0, 1e-7)
    assert int(found.stats["num_steps"]) < 300
    np.testing.assert_allclose(rows(found.ys)[0], spectrum.weights(3.0), rtol=1e-5)
    # One step over all decays, h beta of 1e10, 1e9 and 1e8: L-stability takes the modes to their limits, up to 1/(h beta) and
    # up to rounding, eps h beta (velocities of the stages cancel in a sum of that size).
    spectrum = Spectrum([1e6, 1e5, 1e4])
    term = LinearisedTerm(spectrum.flow, spectrum.system)
    found = integrate(term, LowRankKvaerno5(), spectrum.start, number(1e4), number(1e4), max_steps=1)
    np.testing.assert_allclose(rows(found.ys)[0], spectrum.limits, rtol=1e-5)


def test_integrals_are_carried_along():
    spectrum = Spectrum([1.0, 0.5])
    term = LinearisedTerm(spectrum.flow, spectrum.system, lambda velocity: {"change": jnp.sum(velocity.w)})
    found = controlled(term, ACCURATE, (spectrum.start, {"change": jnp.zeros(())}), 2.0, 1e-9)
    weights, integrals = found.ys
    np.testing.assert_allclose(integrals["change"][0], np.sum(spectrum.weights(2.0)), rtol=1e-7)
    np.testing.assert_allclose(rows(weights)[0], spectrum.weights(2.0), rtol=1e-7)


@pytest.mark.slow
def test_to_convergence():
    runs = [
        gn.simulate(make_problem(), mean_field(), GradientFlow(), solver=solver, rtol=1e-6)
        for solver in ("kvaerno5", "exponential")
    ]
    for run in runs:
        assert run.result.code == gn.ResultCode.STOP_RULE_MET
        assert run.stats["num_steps"] < 400
    np.testing.assert_allclose(runs[0].model.hidden_weight, runs[1].model.hidden_weight, rtol=0, atol=1e-3)
    np.testing.assert_allclose(runs[0].data.test_loss[-1], runs[1].data.test_loss[-1], rtol=1e-3)


def test_backwards_in_time_is_refused():
    spectrum = Spectrum([1.0, 0.1])
    term = LinearisedTerm(spectrum.flow, spectrum.system)
    with pytest.raises(eqx.EquinoxRuntimeError, match="forwards only"):
        diffrax.diffeqsolve(term, ACCURATE, 1.0, 0.0, -0.5, spectrum.start, adjoint=diffrax.ForwardMode())
