"""The exponential solver inside `diffeqsolve` and `simulate`: order, exactness, stiffness, dense output, failures."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optimistix as optx
import pytest
from facts.recording import jacobian, make_problem, mean_field
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from simulate.linear import Axes, Linear, flow_down
from solvers.running import (
    NONLINEAR,
    NUM_LINEAR,
    Spectrum,
    errors_at_fixed_steps,
    integrate,
    linear_solution,
    number,
    rows,
    slope,
)

import gnflow as gn
from gnflow import ResultCode
from gnflow.flows import Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry import Decomposition, System
from gnflow.geometry.damping import Constant, Exponential
from gnflow.geometry.directions import Cholesky
from gnflow.models import Linearised, MeanFieldNetwork, RandomFeatures
from gnflow.solvers import ExponentialRungeKutta, LinearisedTerm

EXPONENTIAL = ExponentialRungeKutta()
STEPS = {
    "gradient": (16, 32, 64),
    # sigma_min, to which the damping is tied, moves fast at first.
    "gauss-newton": (64, 128, 256),
    "gauss-newton, lifted damping": (16, 32, 64),
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_order_four_at_the_end_and_inside_steps(name):
    """The dense output is of order 3 in one step, which is 4 over many."""
    at_end, inside = errors_at_fixed_steps(NONLINEAR[name], EXPONENTIAL, STEPS[name])
    assert at_end[-1] < 1e-7
    np.testing.assert_allclose(slope(STEPS[name], at_end), 4, atol=0.15)
    np.testing.assert_allclose(slope(STEPS[name], inside), 4, atol=0.25)


def test_the_order_does_not_depend_on_the_linearisation():
    """Two modes of eight: what W leaves out is in the remainder."""
    solver = ExponentialRungeKutta(Decomposition(dense_limit=0, rank=2))
    at_end, inside = errors_at_fixed_steps(NONLINEAR["gradient"], solver, STEPS["gradient"])
    whole, _ = errors_at_fixed_steps(NONLINEAR["gradient"], EXPONENTIAL, STEPS["gradient"])
    np.testing.assert_allclose(slope(STEPS["gradient"], at_end), 4, atol=0.15)
    assert slope(STEPS["gradient"], inside) > 3.7
    assert np.all(at_end != whole)


def test_the_error_estimate_is_of_order_four():
    """The error of one step by the embedded method of order 3; the solver's own is an order smaller."""
    case = NONLINEAR["gradient"]
    solver, weights = EXPONENTIAL, case.weights

    @jax.jit
    def step(length):
        end, error, _, _, _ = solver.step(case.term, 0.0, length, weights, None, None, False)
        return ravel_pytree(end)[0], ravel_pytree(error)[0]

    lengths = np.array([0.2, 0.1, 0.05])
    estimates, errors = [], []
    for length in lengths:
        end, estimate = step(number(length))
        estimates.append(np.linalg.norm(estimate))
        errors.append(np.linalg.norm(end - case.reference(length)))
    np.testing.assert_allclose(slope(1 / lengths, estimates), 4, atol=0.25)
    np.testing.assert_allclose(slope(1 / lengths, errors), 5, atol=0.25)
    assert np.all(np.array(errors) < estimates)


def random_features(width, seed=0):
    return RandomFeatures(2, width, 1, "tanh", output_init_scale=1.0, key=jr.key(seed))


def linear_problem(repeated=False):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(NUM_LINEAR, 2)), rng.normal(size=NUM_LINEAR)
    # A sample given twice: A is singular, and its two residuals differ in a direction that does not move.
    rows_of_x = [0, 1, 2, 3, 4, 4] if repeated else range(NUM_LINEAR)
    return gn.Problem(x[list(rows_of_x)], y)


def linearised():
    return Linearised(MeanFieldNetwork(2, 10, 1, output_init_scale=1.0, key=jr.key(1)))


DAMPING = 1e-3
GAINS = {
    "gradient": (GradientFlow(3.0), lambda lam: 3.0 + 0 * lam),
    "spectral": (SpectralFlow(0.5, Constant(DAMPING)), lambda lam: (lam + DAMPING) ** -0.5),
    "gauss-newton": (GaussNewtonFlow("identity", Constant(DAMPING)), lambda lam: 1 / (lam + DAMPING)),
    "gauss-newton, frozen": (
        Frozen(GaussNewtonFlow("identity", Constant(DAMPING)), "output"),
        lambda lam: 1 / (lam + DAMPING),
    ),
}
LINEAR_CASES = {
    "random features, gradient": (random_features(10), linear_problem(), "gradient"),
    "random features, spectral": (random_features(10), linear_problem(), "spectral"),
    "random features, gauss-newton": (random_features(10), linear_problem(), "gauss-newton"),
    "a sample twice, gradient": (random_features(10), linear_problem(repeated=True), "gradient"),
    "a sample twice, gauss-newton": (random_features(10), linear_problem(repeated=True), "gauss-newton"),
    "more outputs than weights": (random_features(4), linear_problem(), "gauss-newton"),
    "linearised network": (linearised(), linear_problem(), "gradient"),
    "frozen network": (random_features(10).network, linear_problem(), "gauss-newton, frozen"),
}


@pytest.mark.parametrize("name", LINEAR_CASES)
def test_one_step_to_any_time_is_exact(name):
    """In models that are linear in their weights."""
    model, problem, kind = LINEAR_CASES[name]
    flow, gain = GAINS[kind]
    system = flow.system(problem, model)
    weights = system.weights(model)
    term = LinearisedTerm(flow.dynamics, system)
    start, unravel = ravel_pytree(weights)
    if isinstance(model, MeanFieldNetwork):
        jac = jacobian(RandomFeatures.of(model), problem.x_train)
    elif isinstance(model, Linearised):
        jac = jacobian(model.base, problem.x_train)
    else:
        jac = jacobian(model, problem.x_train)
    residual = np.asarray(system.outputs(weights) - problem.y_train).reshape(-1)
    for time in (1e-3, 1.0, 1e3, 1e6):
        found = integrate(term, EXPONENTIAL, weights, number(time), number(time), max_steps=1)
        assert int(found.stats["num_steps"]) == 1
        expected = start + linear_solution(jac, gain, residual, time)
        np.testing.assert_allclose(rows(found.ys)[0], expected, rtol=0, atol=1e-9 * max(1, np.abs(expected).max()))
    found = rows(integrate(term, EXPONENTIAL, weights, number(1e12), number(1e12), max_steps=1).ys)[0]
    assert np.all(np.isfinite(found))
    # Rounding, times 1e12, in directions that the outputs do not see; in those that they see there is nothing left of it.
    reached = system.outputs(unravel(jnp.asarray(found)))
    expected = system.outputs(unravel(jnp.asarray(start + linear_solution(jac, gain, residual, 1e12))))
    np.testing.assert_allclose(reached, expected, atol=1e-2)


SPECTRUM = Spectrum(10.0 ** -np.arange(0, 13, 2))  # rates 1 to 1e-12
TIMES = np.array([0.0, 1e-3, 0.7, 3.0, 1e2, 1e5, 3e8, 1e11, 1e12, 3e12, 1e13, 2e13])


def speed(velocity):
    """The rate of the path length, in one step over twelve decades."""
    return {"length": jnp.linalg.norm(velocity.w)}


def test_saves_and_integrals_inside_a_step_over_twelve_decades():
    term = LinearisedTerm(SPECTRUM.flow, SPECTRUM.system, speed)
    y0 = (SPECTRUM.start, {"length": jnp.zeros(())})
    end = number(TIMES[-1])
    found = integrate(term, EXPONENTIAL, y0, end, end, diffrax.SaveAt(ts=jnp.asarray(TIMES)), max_steps=1)
    weights, integrals = found.ys
    np.testing.assert_allclose(rows(weights), SPECTRUM.weights(TIMES), rtol=1e-11, atol=1e-15)
    # In the logarithm of time every mode's decay is a smooth feature of width one.
    u, measures = (np.array(part) for part in np.polynomial.legendre.leggauss(4000))
    for time, length in zip(TIMES, np.asarray(integrals["length"]), strict=True):
        upper = np.log1p(time)
        s = np.expm1(upper * (u + 1) / 2)
        speeds = np.linalg.norm(SPECTRUM.limits * SPECTRUM.rates * np.exp(-SPECTRUM.rates * s[:, None]), axis=1)
        np.testing.assert_allclose(length, np.sum(measures * speeds * (1 + s)) * upper / 2, rtol=1e-5)


def test_dense_output_and_events_inside_a_step():
    """The run is ended where the loss crosses a threshold, at a time known in closed form."""
    spectrum = Spectrum([1.0, 1e-3, 1e-5])
    term = LinearisedTerm(spectrum.flow, spectrum.system)
    threshold = spectrum.loss(2.5e4)

    def above(t, y, args, **_):
        return spectrum.system.train_loss(y) - threshold

    event = diffrax.Event(above, optx.Bisection(rtol=1e-12, atol=1e-12, flip=True), direction=False)
    end = number(1e6)
    found = integrate(term, EXPONENTIAL, spectrum.start, end, end, diffrax.SaveAt(t1=True, dense=True), event=event)
    assert found.result == diffrax.RESULTS.event_occurred
    expected = brentq(lambda t: spectrum.loss(t) - threshold, 1, 1e6, rtol=1e-14)
    np.testing.assert_allclose(found.ts[-1], expected, rtol=1e-9)
    np.testing.assert_allclose(rows(found.ys)[0], spectrum.weights(expected), rtol=1e-9)
    times = jnp.asarray([0.0, 0.1, 10.0, 1e3, 2e4])
    dense = jax.vmap(found.evaluate)(times)
    np.testing.assert_allclose(rows(dense), spectrum.weights(np.asarray(times)), rtol=1e-11, atol=1e-15)
    difference = found.evaluate(number(10.0), number(1e3))
    np.testing.assert_allclose(difference.w, np.diff(spectrum.weights([10.0, 1e3]), axis=0)[0], rtol=1e-10)


def test_a_spectrum_that_is_not_on_the_axes():
    """Rates from 1 to 1e-12 of a full matrix: eigh knows the smallest to some digits, and so does the solution."""
    rng = np.random.default_rng(0)
    rates = SPECTRUM.rates
    left, right = (np.linalg.qr(rng.normal(size=(len(rates), len(rates))))[0] for _ in range(2))
    jac = left * np.sqrt(rates * len(rates)) @ right
    targets = jac @ (right.T @ SPECTRUM.limits)
    flow, model = GradientFlow(1.0), Linear.at(np.zeros(len(rates)))
    system = flow.system(gn.Problem(jac, targets), model)
    term, saveat = LinearisedTerm(flow, system), diffrax.SaveAt(ts=jnp.asarray(TIMES))
    end = number(TIMES[-1])
    found = rows(integrate(term, EXPONENTIAL, system.weights(model), end, end, saveat, max_steps=1).ys) @ right.T
    expected = SPECTRUM.weights(TIMES)
    np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=1e-4)
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.fixture(scope="module")
def controlled():
    """controlled(case, tolerance): by Diffrax's own step-size control, with weights as state."""

    def run(case, tolerance, weights=None):
        controller = diffrax.PIDController(rtol=number(tolerance), atol=number(tolerance), pcoeff=0.2, icoeff=0.8)
        start = case.weights if weights is None else weights
        return integrate(case.term, EXPONENTIAL, start, number(case.end), number(1e-2), None, controller, 20000)

    return run


@pytest.mark.parametrize("name", ["gradient", "gauss-newton"])
def test_against_dop853(controlled, name):
    case = NONLINEAR[name]
    found = controlled(case, 1e-12)
    assert found.result == diffrax.RESULTS.successful
    np.testing.assert_allclose(rows(found.ys)[0], case.reference(case.end), rtol=0, atol=1e-10)
    rough = controlled(case, 1e-4)
    assert int(rough.stats["num_steps"]) < int(found.stats["num_steps"]) / 10
    error = np.abs(rows(rough.ys)[0] - case.reference(case.end)).max()
    assert 1e-10 < error < 1e-3


class Stiff:
    """A nonlinear problem with rates over five decades, beside SciPy's Radau with the exact Jacobian."""

    end = 1e3

    def __init__(self):
        inputs = np.linspace(-1, 1, 4)[:, None]
        self.problem = gn.Problem(inputs, np.sin(3 * inputs))
        self.model = MeanFieldNetwork(
            1, 5, 1, "tanh", init_scale=2.0, output_init_scale=2.0, output_scale=5.0, key=jr.key(3)
        )
        self.flow = GradientFlow(1.0)
        self.system = self.flow.system(self.problem, self.model)
        self.start = self.system.weights(self.model)

    @functools.cached_property
    def reference(self):
        vector, unravel = ravel_pytree(self.start)
        slope = jax.jit(jax.grad(lambda w: -self.system.train_loss(unravel(w))))
        curvature = jax.jit(jax.hessian(lambda w: -self.system.train_loss(unravel(w))))
        found = solve_ivp(
            lambda t, w: np.asarray(slope(w)),
            (0.0, self.end),
            np.asarray(vector),
            "Radau",
            jac=lambda t, w: np.asarray(curvature(w)),
            rtol=1e-12,
            atol=1e-13,
        )
        assert found.success
        return found.y[:, -1]


STIFF = Stiff()


def test_a_stiff_nonlinear_problem_against_radau():
    tangent = STIFF.system.tangent(STIFF.start)
    rates = STIFF.flow.linearisation(jnp.zeros(()), tangent, STIFF.system, Decomposition()).rates
    assert jnp.max(rates) * STIFF.end > 1e3
    assert jnp.max(rates) > 1e4 * jnp.min(rates)
    controller = diffrax.PIDController(rtol=number(1e-12), atol=number(1e-12), pcoeff=0.2, icoeff=0.8)
    term = LinearisedTerm(STIFF.flow, STIFF.system)
    found = integrate(term, EXPONENTIAL, STIFF.start, number(STIFF.end), number(1e-2), None, controller, 20000)
    np.testing.assert_allclose(rows(found.ys)[0], STIFF.reference, rtol=0, atol=1e-9)


def seeds_of(case):
    """Three starts."""
    return [case.term.system.weights(mean_field(seed)) for seed in range(3)]


def test_seeds_at_once_are_the_seeds_one_by_one(controlled):
    case = NONLINEAR["gradient"]
    starts = seeds_of(case)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    together = eqx.filter_vmap(lambda weights: controlled(case, 1e-6, weights))(batch)
    for index, start in enumerate(starts):
        alone = controlled(case, 1e-6, start)
        assert int(alone.stats["num_steps"]) == int(together.stats["num_steps"][index])
        got = rows(jax.tree.map(lambda leaf, index=index: leaf[index], together.ys))
        np.testing.assert_allclose(got, rows(alone.ys), rtol=1e-9, atol=1e-12)
    assert len(set(np.asarray(together.stats["num_steps"]).tolist())) > 1


def test_other_numbers_are_not_another_program(controlled):
    case = NONLINEAR["gradient"]
    first, second, _ = seeds_of(case)
    controlled(case, 1e-6, first)
    events = []

    def listen(event, _, **__):
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        found = controlled(case, 1e-7, second)
        assert events == []
        integrate(case.term, EXPONENTIAL, first, number(1.0), number(1.0), max_steps=7)
        assert events != []  # the counter counts
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert found.result == diffrax.RESULTS.successful


@pytest.mark.parametrize("kind", ["gradient", "gauss-newton"])
def test_relative_losses_of_1e_20(kind):
    flow = {"gradient": GradientFlow(), "gauss-newton": GaussNewtonFlow()}[kind]
    run = gn.simulate(make_problem(), mean_field(), flow, stop=gn.RelativeLoss(1e-20), solver="exponential")
    assert run.result.code == ResultCode.STOP_RULE_MET
    loss = run.data.train_loss.values
    assert np.all(np.isfinite(loss))
    assert np.all(np.diff(loss) < 0)
    np.testing.assert_allclose(loss[-1] / loss[0], 1e-20, rtol=1e-2)
    assert run.stats["num_steps"] < 80


def test_a_horizon_of_1e13_and_a_stiffness_ratio_of_1e12():
    """With the run's own step-size control: a few steps, each saved value on the closed form."""
    times = TIMES[1:]
    run = gn.simulate(
        SPECTRUM.problem, SPECTRUM.model, SPECTRUM.flow, t1=2e13, stop=None, saveat=times, solver="exponential"
    )
    assert run.result.code == ResultCode.TIME_REACHED
    np.testing.assert_allclose(run.model.w, SPECTRUM.weights(2e13), rtol=1e-9)
    expected = [SPECTRUM.loss(t) for t in run.data.time.values]
    np.testing.assert_allclose(run.data.train_loss, expected, rtol=1e-7, atol=1e-25)
    assert run.stats["num_steps"] < 30


def test_backwards_in_time_is_refused():
    spectrum = Spectrum([1.0, 0.1])
    term = LinearisedTerm(spectrum.flow, spectrum.system)
    with pytest.raises(eqx.EquinoxRuntimeError, match="forwards only"):
        diffrax.diffeqsolve(term, EXPONENTIAL, 1.0, 0.0, -0.5, spectrum.start, adjoint=diffrax.ForwardMode())


def test_float32_weights_are_refused():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, mean_field())
    with pytest.raises(gn.PrecisionError, match="float32"):
        System(make_problem(), single)
    with pytest.raises(gn.PrecisionError, match="float32"):
        gn.simulate(make_problem(), single, GradientFlow(), solver="exponential")


@pytest.mark.parametrize("solver", ["exponential", "kvaerno5"])
def test_a_model_that_becomes_nan(solver):
    """w_0 = 3 (1 - exp(-t/2)) reaches the edge at 2 when t = 2 ln 3, and all is kept up to there."""
    axes = Axes()
    run = flow_down(axes, Linear.at([0.0, 0.0], edge=200), throw=False, solver=solver)
    assert run.result.code in (ResultCode.STEP_SIZE_TOO_SMALL, ResultCode.NON_FINITE)
    np.testing.assert_allclose(run.result.time, 2 * np.log(3), rtol=1e-3)
    np.testing.assert_allclose(run.model.w, axes.weights(run.result.time), rtol=1e-3)
    assert np.all(np.isfinite(run.data.train_loss))


@pytest.mark.parametrize("solver", ["exponential", "kvaerno5"])
def test_a_singular_gram_matrix_without_damping(solver):
    """Cholesky says so: at the start, and where damping is lifted on the way."""
    problem = make_problem()
    twice = gn.Problem(problem.x_train[jnp.array([0, 0, 1, 2])], problem.y_train)

    def run(start, rate):
        flow = GaussNewtonFlow("identity", Exponential(start, rate), Cholesky())
        return gn.simulate(twice, mean_field(), flow, t1=100.0, throw=False, solver=solver)

    first = run(0.0, 0.0)
    assert first.result.code == ResultCode.DIRECTION_FAILED
    assert first.result.time == 0
    later = run(0.1, 5.0)
    assert later.result.code in (ResultCode.DIRECTION_FAILED, ResultCode.STEP_SIZE_TOO_SMALL)
    assert 3 < later.result.time < 10
    for found in (first, later):
        assert np.all(np.isfinite(found.data.train_loss))
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found.model) if eqx.is_array(leaf))


def test_leading_modes_only_reach_the_same_end():
    """With another W the steps differ, the solution does not."""
    solver = ExponentialRungeKutta(Decomposition(dense_limit=0, rank=1))
    gradient = NONLINEAR["gradient"]
    controller = diffrax.PIDController(rtol=number(1e-11), atol=number(1e-11), pcoeff=0.2, icoeff=0.8)
    found = integrate(
        gradient.term, solver, gradient.weights, number(gradient.end), number(1e-2), None, controller, 20000
    )
    np.testing.assert_allclose(rows(found.ys)[0], gradient.reference(gradient.end), rtol=0, atol=1e-9)
