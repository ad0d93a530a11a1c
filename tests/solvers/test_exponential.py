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
from gnflow.geometry.damping import Constant
from gnflow.models import Linearised, MeanFieldNetwork, RandomFeatures
from gnflow.solvers import ExponentialRungeKutta, LinearisedTerm
from gnflow.solvers._exponential_interpolation import ExponentialInterpolation

EXPONENTIAL = ExponentialRungeKutta()
STEPS = {
    "gradient": (16, 32, 64),
    # sigma_min, to which the damping is tied, moves fast at first.
    "gauss-newton": (64, 128, 256),
    "gauss-newton, lifted damping": (16, 32, 64),
}


@pytest.mark.parametrize(
    "name", ["gradient", "gauss-newton", pytest.param("gauss-newton, lifted damping", marks=pytest.mark.slow)]
)
def test_order_four_at_the_end_and_inside_steps(name):
    """The dense output is of order 3 in one step, which is 4 over many."""
    at_end, inside = errors_at_fixed_steps(NONLINEAR[name], EXPONENTIAL, STEPS[name])
    assert at_end[-1] < 1e-7
    np.testing.assert_allclose(slope(STEPS[name], at_end), 4, atol=0.15)
    np.testing.assert_allclose(slope(STEPS[name], inside), 4, atol=0.25)


def test_the_order_does_not_depend_on_the_linearisation():
    """Two modes of eight: what W leaves out is in the remainder, and the end is the same."""
    solver = ExponentialRungeKutta(Decomposition(dense_limit=0, rank=2))
    at_end, inside = errors_at_fixed_steps(NONLINEAR["gradient"], solver, STEPS["gradient"])
    assert at_end[-1] < 1e-7
    np.testing.assert_allclose(slope(STEPS["gradient"], at_end), 4, atol=0.15)
    assert slope(STEPS["gradient"], inside) > 3.7


def test_the_error_of_a_step_and_its_estimate():
    """Of order 5, and of order 3: W is not the whole Jacobian, so D_3 - D_2 is of order 2 in the step."""
    case = NONLINEAR["gradient"]
    term, weights = case.term, case.weights

    @jax.jit
    def step(length):
        end, error, _, _, _ = EXPONENTIAL.step(term, 0.0, length, weights, None, None, False)
        return ravel_pytree(end)[0], ravel_pytree(error)[0]

    lengths = np.array([0.05, 0.025, 0.0125])
    estimates, errors = [], []
    for length in lengths:
        end, estimate = step(number(length))
        estimates.append(np.linalg.norm(estimate))
        errors.append(np.linalg.norm(end - case.reference(length)))
    np.testing.assert_allclose(slope(1 / lengths, estimates), 3, atol=0.15)
    np.testing.assert_allclose(slope(1 / lengths, errors), 5, atol=0.15)
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
}
# In one test what is one program. The last has fewer weights than outputs.
LINEAR_CASES = {
    "random features, gradient": (random_features(10), [linear_problem(), linear_problem(repeated=True)]),
    "random features, spectral": (random_features(10), [linear_problem(), linear_problem(repeated=True)]),
    "random features, gauss-newton": (random_features(10), [linear_problem(), linear_problem(repeated=True)]),
    "frozen network, gauss-newton": (random_features(10).network, [linear_problem()]),
    "linearised network, gradient": (linearised(), [linear_problem(), linear_problem(repeated=True)]),
    "four random features, gauss-newton": (random_features(4), [linear_problem()]),
}


@pytest.mark.parametrize("name", LINEAR_CASES)
def test_one_step_to_any_time_is_exact(name):
    """In models that are linear in their weights."""
    model, problems = LINEAR_CASES[name]
    flow, gain = GAINS[name.rpartition(", ")[2]]
    if isinstance(model, MeanFieldNetwork):
        flow, linear = Frozen(flow, "output"), RandomFeatures.of(model)
    else:
        linear = model.base if isinstance(model, Linearised) else model

    @eqx.filter_jit
    def step(system, weights, time):
        term = LinearisedTerm(flow.dynamics, system)
        end = EXPONENTIAL.step(term, 0.0, time, weights, None, None, False)[0]
        return ravel_pytree(end)[0], system.outputs(end)

    for problem in problems:
        system = flow.system(problem, model)
        weights = system.weights(model)
        start = np.asarray(ravel_pytree(weights)[0])
        jac = jacobian(linear, problem.x_train)
        residual = np.asarray(system.outputs(weights) - problem.y_train).reshape(-1)
        for time in (1e-3, 1.0, 1e3, 1e6, 1e12):
            end, outputs = step(system, weights, number(time))
            moved = linear_solution(jac, gain, residual, time)
            # The amplitude of a mode that has decayed is the difference of two numbers as large as time times its rate.
            atol = 1e-9 if time <= 1e6 else 1e-2
            np.testing.assert_allclose(outputs.reshape(-1), residual + jac @ moved + problem.y_train[:, 0], atol=atol)
            if time <= 1e6:
                np.testing.assert_allclose(end, start + moved, rtol=0, atol=1e-9 * max(1, np.abs(moved).max()))
            assert np.all(np.isfinite(end))


def speed(velocity):
    """The rate of the path length."""
    return {"length": jnp.linalg.norm(velocity.w)}


def test_saves_and_integrals_inside_a_step_over_many_decades():
    spectrum = Spectrum(10.0 ** -np.arange(7))
    times = np.array([0.0, 1e-3, 0.7, 3.0, 1e2, 4e3, 1e5, 3e6, 1e7])
    term = LinearisedTerm(spectrum.flow, spectrum.system, speed)
    y0 = (spectrum.start, {"length": jnp.zeros(())})
    end = number(times[-1])
    found = integrate(term, EXPONENTIAL, y0, end, end, diffrax.SaveAt(ts=jnp.asarray(times)), max_steps=1)
    weights, integrals = found.ys
    # A mode that has decayed is the difference of two numbers as large as time times its rate.
    for time, got, expected in zip(times, rows(weights), spectrum.weights(times), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-15 * time)
    # In the logarithm of time every mode's decay is a smooth feature of width one.
    nodes, measures = np.polynomial.legendre.leggauss(1000)
    for time, length in zip(times, np.asarray(integrals["length"]), strict=True):
        upper = np.log1p(time)
        s = np.expm1(upper * (nodes + 1) / 2)
        speeds = np.linalg.norm(spectrum.limits * spectrum.rates * np.exp(-spectrum.rates * s[:, None]), axis=1)
        # 64 nodes; what limits them are the zeros of the norm in the complex plane, where two modes' speeds cancel.
        np.testing.assert_allclose(length, np.sum(measures * speeds * (1 + s)) * upper / 2, rtol=1e-6)


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
    # By the step itself: Diffrax's solution takes differences of arrays only, not of trees.
    _, _, dense_info, _, _ = EXPONENTIAL.step(term, number(0.0), end, spectrum.start, None, None, False)
    step = ExponentialInterpolation(t0=number(0.0), t1=end, **dense_info)
    difference = step.evaluate(number(10.0), number(1e3))
    np.testing.assert_allclose(
        difference.w, np.diff(spectrum.weights([10.0, 1e3]), axis=0)[0], rtol=1e-10, atol=1e-15 * 1e3
    )


@pytest.fixture(scope="module")
def controlled():
    """controlled(case, tolerance): by Diffrax's own step-size control, with weights as state."""

    def run(case, tolerance, weights=None):
        controller = diffrax.PIDController(rtol=number(tolerance), atol=number(tolerance), pcoeff=0.2, icoeff=0.8)
        start = case.weights if weights is None else weights
        return integrate(case.term, EXPONENTIAL, start, number(case.end), number(1e-2), None, controller, 20000)

    return run


def test_against_dop853(controlled):
    case = NONLINEAR["gradient"]
    found = controlled(case, 1e-12)
    assert found.result == diffrax.RESULTS.successful
    np.testing.assert_allclose(rows(found.ys)[0], case.reference(case.end), rtol=0, atol=1e-10)
    rough = controlled(case, 1e-4)
    assert int(rough.stats["num_steps"]) < int(found.stats["num_steps"]) / 10
    error = np.abs(rows(rough.ys)[0] - case.reference(case.end)).max()
    assert 1e-10 < error < 1e-3


class Stiff:
    """A nonlinear problem with rates over five decades, beside SciPy's Radau with the exact Jacobian."""

    end = 100.0

    def __init__(self):
        inputs = np.linspace(-1, 1, 5)[:, None]
        self.problem = gn.Problem(inputs, np.sin(3 * inputs))
        self.model = MeanFieldNetwork(1, 6, 1, output_init_scale=1.0, output_scale=10.0, key=jr.key(3))
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
            rtol=1e-11,
            atol=1e-12,
        )
        assert found.success
        return found.y[:, -1]


STIFF = Stiff()


def test_a_stiff_nonlinear_problem_against_radau():
    tangent = STIFF.system.tangent(STIFF.start)
    rates = STIFF.flow.linearisation(jnp.zeros(()), tangent, STIFF.system, Decomposition()).rates
    assert jnp.max(rates) * STIFF.end > 1e3
    assert jnp.max(rates) > 1e4 * jnp.min(rates)
    controller = diffrax.PIDController(rtol=number(1e-11), atol=number(1e-11), pcoeff=0.2, icoeff=0.8)
    term = LinearisedTerm(STIFF.flow, STIFF.system)
    found = integrate(term, EXPONENTIAL, STIFF.start, number(STIFF.end), number(1e-2), None, controller, 20000)
    np.testing.assert_allclose(rows(found.ys)[0], STIFF.reference, rtol=0, atol=1e-10)


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


@pytest.mark.parametrize("kind", ["gradient", pytest.param("gauss-newton", marks=pytest.mark.slow)])
def test_relative_losses_of_1e_20(kind):
    flow = {"gradient": GradientFlow(), "gauss-newton": GaussNewtonFlow()}[kind]
    run = gn.simulate(make_problem(), mean_field(), flow, stop=gn.RelativeLoss(1e-20), solver="exponential")
    assert run.result.code == ResultCode.STOP_RULE_MET
    loss = run.data.train_loss.values
    assert np.all(np.isfinite(loss))
    assert np.all(np.diff(loss) < 0)
    np.testing.assert_allclose(loss[-1] / loss[0], 1e-20, rtol=1e-2)
    # Half of these would do at 5e-3, but then the residual is wrong by more than a tenth at the end.
    assert run.stats["num_steps"] < 160
    assert run.stats["estimated_error"] < 0.05


@pytest.mark.parametrize("rotated", [False, True])
def test_a_horizon_of_1e13_and_a_stiffness_ratio_of_1e12(rotated):
    """With the run's own step-size control: a few steps, each saved value on the closed form."""
    spectrum = Spectrum(10.0 ** -np.arange(0, 13, 2))  # rates 1 to 1e-12
    size = len(spectrum.rates)
    rng = np.random.default_rng(0)
    # On the axes all modes are known to the last digit. In a full matrix rounding mixes the slowest eigenvector with the
    # fastest by delta = eps / 1e-12, so that moving the slowest residual to its limit moves the fastest by delta times it.
    delta = np.finfo(float).eps / 1e-12
    floor = delta**2 * spectrum.loss(1e11) if rotated else 0.0
    left, right = (np.linalg.qr(rng.normal(size=(size, size)))[0] if rotated else np.eye(size) for _ in range(2))
    inputs = left * spectrum.scales @ right
    problem = gn.Problem(inputs, inputs @ (right.T @ spectrum.limits))
    times = [1e-3, 0.7, 3.0, 1e2, 1e5, 3e8, 1e11, 1e12, 3e12, 1e13]
    run = gn.simulate(problem, spectrum.model, spectrum.flow, t1=2e13, stop=None, saveat=times, solver="exponential")
    assert run.result.code == ResultCode.TIME_REACHED
    np.testing.assert_allclose(right @ run.model.w, spectrum.weights(2e13), rtol=1e-4 if rotated else 1e-9)
    expected = [spectrum.loss(t) for t in run.data.time.values]
    np.testing.assert_allclose(run.data.train_loss, expected, rtol=1e-2 if rotated else 1e-7, atol=1e-25 + floor)
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
