"""The stabilised solver: Runge-Kutta-Chebyshev steps."""

import importlib

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from jax.flatten_util import ravel_pytree
from solvers.running import NONLINEAR, Spectrum, errors_at_fixed_steps, integrate, number, rows, slope

import gnflow as gn
from gnflow.flows import DualGaussNewtonFlow, Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.simulate import simulate_once
from gnflow.solvers import PairTerm, StabilisedRungeKutta
from gnflow.solvers._spectral_radius import SpectralRadius
from gnflow.solvers._stabilised import _INTERVAL, _stages

SOLVER = StabilisedRungeKutta()
LINEAR = diffrax.ODETerm(lambda time, y, rate: rate * y)
SIMPLE = diffrax.ODETerm(lambda time, y, rates: rates * y)


@jax.jit
def polynomial(z, num_stages):
    """P_s(z) of y' = z y, in one step of length 1."""
    ones = jnp.ones_like(z)
    return 1 + _stages(LINEAR, 0.0, jnp.ones(()), ones, z, z, num_stages).moved


@pytest.mark.parametrize("stages", [2, 3, 4, 10, 36, 200, 500])
def test_stability(stages):
    """The polynomial is at most 1 in modulus on the interval that steps are chosen for, which is as long as it can be; inside
    it, off the ends, it is damped; and it is exp(z) to order 2."""
    length = stages**2 - 1.0
    z = -np.linspace(0, _INTERVAL * length, 20001)
    values = np.asarray(polynomial(jnp.asarray(z), jnp.asarray(stages)))
    assert np.all(np.abs(values) <= 1)
    assert _INTERVAL * length > 0.6 * stages**2 or stages < 4
    if stages > 2:
        assert np.max(np.abs(values[z < -3 * length / stages**2])) < 0.97
    beyond = np.asarray(polynomial(jnp.asarray([-1.3 * _INTERVAL * length]), jnp.asarray(stages)))
    assert abs(beyond[0]) > 1
    small = np.asarray([-0.02, -0.01])
    order = np.abs(np.asarray(polynomial(jnp.asarray(small), jnp.asarray(stages))) - np.exp(small))
    np.testing.assert_allclose(order[0] / order[1], 8, rtol=0.05)


@pytest.mark.parametrize("stages", [2, 5, 25])
def test_order_two_for_any_number_of_stages(stages):
    """Of y' = -y^2 + cos t, against itself with many steps, so that the stages' times count, too."""
    term = diffrax.ODETerm(lambda time, y, args: -(y**2) + jnp.cos(time))

    @jax.jit
    def solution(count):
        def step(index, y):
            start = index / count
            first = term.vf(start, y, None)
            return y + _stages(term, start, 1 / count, y, first, None, jnp.asarray(stages)).moved

        return jax.lax.fori_loop(0, count, step, jnp.asarray(0.5))

    counts = (8, 16, 32, 64)
    errors = np.abs(np.asarray([solution(jnp.asarray(count)) for count in counts]) - float(solution(jnp.asarray(8192))))
    np.testing.assert_allclose(slope(counts, errors), 2, atol=0.1)


def test_order_two_along_a_flow():
    """At the end of steps, and inside them, where the interpolation is of order 3."""
    counts = (16, 32, 64)
    at_end, inside = errors_at_fixed_steps(NONLINEAR["gradient"], SOLVER, counts)
    np.testing.assert_allclose(slope(counts, at_end), 2, atol=0.1)
    np.testing.assert_allclose(slope(counts, inside), 2, atol=0.1)


def one_step(solver, y0, rates, length):
    begun = solver.init(SIMPLE, 0.0, length, y0, rates)
    return eqx.filter_jit(solver.step)(SIMPLE, number(0.0), number(length), y0, rates, begun, False)


def test_the_error_estimate():
    """Its formula; of order 3 as it says; and it begins from velocities that the next step need not compute."""
    rates, y0 = jnp.asarray([-1.0, -0.5]), jnp.asarray([1.0, 2.0])
    sizes = []
    for length in (0.2, 0.1):
        y1, error, inside, state, _ = one_step(SOLVER, y0, rates, length)
        np.testing.assert_allclose(error, 0.8 * (y0 - y1) + 0.4 * length * rates * (y0 + y1), rtol=1e-9)
        np.testing.assert_allclose(state.velocity, rates * y1, rtol=1e-14)
        np.testing.assert_allclose(inside["k1"], length * rates * y1, rtol=1e-14)
        sizes.append(np.linalg.norm(error))
    np.testing.assert_allclose(np.log2(sizes[0] / sizes[1]), SOLVER.error_order(None), atol=0.1)


def controlled(term, solver, start, end, tolerance, saveat=None):
    controller = diffrax.PIDController(rtol=number(tolerance), atol=number(tolerance), pcoeff=0.2, icoeff=0.8)
    return integrate(term, solver, start, number(end), number(1e-6), saveat, controller)


def field(spectrum):
    return lambda time, weights, args: spectrum.flow.velocity(time, weights, spectrum.system)


def test_stiffness_costs_a_square_root():
    """Rates 1e5 to 1, in few steps, also inside long ones: an explicit method would take 1e5."""
    spectrum = Spectrum([1e5, 1e3, 10.0, 1.0])
    times = np.asarray([1e-3, 0.05, 0.7, 1.3, 3.0])
    found = controlled(
        diffrax.ODETerm(field(spectrum)), SOLVER, spectrum.start, 3.0, 1e-6, diffrax.SaveAt(ts=jnp.asarray(times))
    )
    assert int(found.stats["num_steps"]) < 1500
    np.testing.assert_allclose(rows(found.ys), spectrum.weights(times), rtol=1e-4)


def test_the_same_solution():
    """As SciPy's DOP853 finds for the velocity written out densely; with any term of an ODE."""
    case = NONLINEAR["gradient"]
    found = controlled(case.term, SOLVER, case.weights, case.end, 1e-8)
    np.testing.assert_allclose(rows(found.ys)[0], case.reference(case.end), rtol=0, atol=1e-5)


def test_a_radius_that_grows_between_looks():
    """From 1 to 2e4 in a flow time of 0.1: what is then unstable is seen as an error, and the radius is found anew."""

    def vector_field(time, y, args):
        rate = 1 + 2e4 / (1 + jnp.exp(-(time - 1) / 0.01))
        return -rate * (y - jnp.cos(3 * time))

    times = np.asarray([1.2, 2.0])
    saveat = diffrax.SaveAt(ts=jnp.asarray(times))
    found = controlled(diffrax.ODETerm(vector_field), SOLVER, jnp.zeros(1), 2.0, 1e-5, saveat)
    # By then y follows cos 3t, up to 1e-8, with a lag of one over the rate.
    np.testing.assert_allclose(found.ys[:, 0], np.cos(3 * times) + 3 * np.sin(3 * times) / 2e4, atol=1e-5)
    assert int(found.stats["num_steps"]) < 500
    assert int(found.stats["num_rejected_steps"]) > 0


def test_integrals_are_carried_along():
    """What is linear in w' comes out as the weights do, and does not disturb the spectral radius."""
    spectrum = Spectrum([100.0, 0.5])
    velocity = field(spectrum)

    def pair(time, state, args):
        rates = velocity(time, state[0], args)
        return rates, {"change": 1e3 * jnp.sum(rates.w)}

    solver = eqx.filter_jit(SOLVER.step)
    start, term = (spectrum.start, {"change": jnp.zeros(())}), PairTerm(pair)
    found = controlled(term, SOLVER, start, 2.0, 1e-7)
    assert found.ys is not None
    weights, integrals = found.ys
    np.testing.assert_allclose(rows(weights)[0], spectrum.weights(2.0), rtol=2e-5)
    np.testing.assert_allclose(integrals["change"][0], 1e3 * np.sum(rows(weights)[0]), rtol=1e-10)
    begun = SOLVER.init(term, 0.0, 1.0, start, None)
    state = solver(term, number(0.0), number(0.01), start, None, begun, False)[3]
    np.testing.assert_allclose(state.spectrum.radius, 100.0, rtol=1e-3)
    assert float(state.spectrum.asymmetry) < 1e-6


def test_a_step_that_needs_too_many_stages_is_not_taken():
    """Its error is infinite, and no velocity is spent on it; the next that the controller tries is short enough."""
    rates, y0 = jnp.asarray([-1e3, -1.0]), jnp.asarray([1.0, 2.0])
    few = StabilisedRungeKutta(max_stages=4)
    y1, error, _, state, _ = one_step(few, y0, rates, 1.0)
    np.testing.assert_array_equal(y1, y0)
    assert np.all(np.isinf(error))
    report = few.report(state)
    assert int(report.num_velocities) == 0
    length = float(report.longest)
    y1, error, _, state, _ = one_step(few, y0, rates, length)
    assert int(few.report(state).num_velocities) == 4
    assert np.all(np.isfinite(error))
    assert np.all(np.abs(y1) <= np.abs(y0))
    # A little more is taken with a smaller margin, so that a radius that has grown a little rejects no step.
    assert int(few.report(one_step(few, y0, rates, 1.1 * length)[3]).num_velocities) == 4
    assert int(few.report(one_step(few, y0, rates, 1.2 * length)[3]).num_velocities) == 0
    np.testing.assert_allclose(length, _INTERVAL * 15 / 1.2e3, rtol=0.03)
    found = eqx.filter_jit(diffrax.diffeqsolve)(
        SIMPLE,
        few,
        0.0,
        1.0,
        0.5,
        y0,
        rates,
        stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
        adjoint=diffrax.ForwardMode(),
    )
    np.testing.assert_allclose(found.ys[0], y0 * jnp.exp(rates), atol=1e-4)


@pytest.mark.parametrize("stages", [0, 1])
def test_numbers_of_stages_that_are_none(stages):
    with pytest.raises(gn.ConfigError, match="max_stages"):
        StabilisedRungeKutta(max_stages=stages)


def refreshed(matrix, known=None, start=None):
    """`SpectralRadius.refreshed` for the linear velocity with that matrix."""
    matrix = jnp.asarray(matrix)
    point = jnp.ones(len(matrix))
    known = SpectralRadius.unknown(point) if known is None else known
    start = jnp.zeros(len(matrix)) if start is None else jnp.asarray(start)
    return known.refreshed(lambda weights: (matrix @ weights, {}), point, (start, {}), jnp.asarray(True))


def symmetric(eigenvalues):
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((len(eigenvalues), len(eigenvalues))))[0]
    return basis * np.asarray(eigenvalues) @ basis.T, basis


@pytest.mark.parametrize("largest", [3.0, -3.0])
def test_the_spectral_radius(largest):
    """Of a symmetric matrix with eigenvalues of both signs; with the velocity, which comes with it."""
    matrix, _ = symmetric([largest, *np.linspace(-2, 2, 40)])
    found, (velocity, _), count = refreshed(matrix)
    assert 2.9 < float(found.radius) < 3.0 + 1e-9
    assert 8 <= int(count) < 30
    assert float(found.asymmetry) < 1e-6
    np.testing.assert_allclose(velocity, matrix @ np.ones(41), rtol=1e-12)
    # From there on a few products tell that nothing has changed, or that all has.
    again, _, count = refreshed(matrix, found)
    assert int(count) == 2
    assert float(again.radius) >= float(found.radius)
    half, _, count = refreshed(matrix / 2, found)
    np.testing.assert_allclose(half.radius, 1.5, rtol=0.02)
    assert int(count) < 6


def test_a_mode_that_takes_over_is_found():
    """An eigenvector knows nothing of another that has become larger; the velocity, in which it has begun to grow, does."""
    eigenvalues = np.linspace(-1, 0, 20)
    _, basis = symmetric([-3.0, -2.0, *eigenvalues])
    known = SpectralRadius(jnp.asarray(basis[:, 0]), jnp.asarray(3.0), jnp.zeros(()))
    faster, _ = symmetric([-3.0, -4.5, *eigenvalues])
    found, _, _ = refreshed(faster, known, basis[:, 1])
    np.testing.assert_allclose(found.radius, 4.5, rtol=0.05)


@pytest.mark.parametrize("angle", [0.0, 0.1, 0.7])
def test_asymmetry(angle):
    """|Im lambda|/|lambda| of blocks that turn, all at one angle."""
    block = -np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found, _, _ = refreshed(np.kron(np.diag([1.0, 2.0, 3.0]), block))
    np.testing.assert_allclose(found.asymmetry, np.sin(angle), atol=1e-6)


def test_no_jacobian():
    found, _, _ = refreshed(np.zeros((3, 3)))
    assert float(found.radius) == 0
    np.testing.assert_allclose(np.linalg.norm(found.vector), 1)


PROBLEM = gn.Problem(
    np.random.default_rng(0).standard_normal((12, 3)),
    np.eye(3)[np.arange(12) % 3],
    np.random.default_rng(1).standard_normal((7, 3)),
    np.eye(3)[np.arange(7) % 3],
    loss=gn.losses.SoftmaxCrossEntropy(),
)
NETWORK = gn.models.MLP(3, 16, 2, 3, activation="tanh", key=jax.random.key(1))


def classify(solver, flow=None, target=1e-3, **settings):
    return gn.simulate(
        PROBLEM, NETWORK, flow or GradientFlow(1.0), solver=solver, stop=gn.RelativeLoss(target), **settings
    )


@pytest.mark.slow
def test_softmax_with_several_outputs():
    """As by an explicit solver at a tight tolerance, also between steps, with fewer velocities than its own."""
    found, usual = classify("stabilised"), classify("tsit5")
    exact = classify("dopri8", rtol=1e-6)
    assert found.result.code == gn.ResultCode.STOP_RULE_MET
    assert found.stats["solver"] == found.settings["solver"] == "stabilised"
    assert found.stats["num_velocity_evaluations"] < usual.stats["num_velocity_evaluations"] / 3
    assert found.stats["jacobian_asymmetry"] < 1e-6
    np.testing.assert_allclose(found.data.time[-1], exact.data.time[-1], rtol=0.01)
    count = found.data.sizes["time"] - 1
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(found.data[name][:count], exact.data[name][:count], rtol=0.01)
    error = np.sqrt(found.data.train_loss[:count] / exact.data.train_loss[:count]) - 1
    assert np.max(np.abs(error)) / 3 <= found.stats["estimated_error"] <= 300 * np.max(np.abs(error))


def test_the_spectral_radius_of_a_flow():
    """After the first step, that of the Hessian at the start."""
    system = gn.System(PROBLEM, NETWORK)
    weights, unravel = ravel_pytree(system.weights(NETWORK))
    hessian = jax.hessian(lambda vector: system.train_loss(unravel(vector)))(weights)
    largest = np.max(np.abs(np.linalg.eigvalsh(hessian)))
    found = classify("stabilised", target=0.99, rtol=1e-3).stats
    assert found["num_accepted_steps"] < 10
    np.testing.assert_allclose(found["last_spectral_radius"], largest, rtol=0.03)


def test_few_stages_at_most():
    """The controller is told how long a step may be, so that it tries none that is not taken."""
    few = classify(StabilisedRungeKutta(max_stages=3), target=0.1)
    assert few.stats["num_rejected_steps"] < 0.1 * few.stats["num_steps"]
    assert few.stats["num_velocity_evaluations"] <= 4 * few.stats["num_steps"]
    many = classify("stabilised", target=0.1)
    assert few.stats["num_steps"] > 1.2 * many.stats["num_steps"]
    np.testing.assert_allclose(few.data.time[-1], many.data.time[-1], rtol=0.01)


def test_saves_inside_long_steps():
    """Of a flow that is known: at its saves the residual is as right as at the end of steps."""
    spectrum = Spectrum([3e3, 30.0, 1.0])
    times = np.geomspace(1e-4, 3.0, 40)
    found = gn.simulate(
        spectrum.problem, spectrum.model, spectrum.flow, solver="stabilised", t1=3.2, stop=None, saveat=times
    )
    assert found.stats["num_accepted_steps"] < 150
    exact = np.asarray([spectrum.loss(time) for time in times])
    np.testing.assert_allclose(np.sqrt(found.data.train_loss[1:-1] / exact), 1, rtol=0.01)


class Counted(GradientFlow):
    """Counts its velocities."""

    seen: list = eqx.field(static=True, default_factory=list)

    def direction(self, time, tangent, system):
        jax.debug.callback(lambda: self.seen.append(None))
        return super().direction(time, tangent, system)


def test_velocities_are_counted(monkeypatch):
    """All that the steps take, rejected ones among them, and those that the error of the run asks for."""
    loop = importlib.import_module("gnflow.simulate._integrate")
    flow, advance, count = Counted(1.0), loop.advance, []

    def counted(*arguments):
        jax.effects_barrier()
        before = len(flow.seen)
        segment = jax.block_until_ready(advance(*arguments))
        jax.effects_barrier()
        count.append(len(flow.seen) - before)
        return segment

    monkeypatch.setattr(loop, "advance", counted)
    stats = simulate_once(
        PROBLEM, NETWORK, flow, solver="stabilised", stop=gn.RelativeLoss(1e-2), rtol=1e-2, throw=False
    ).stats
    assert stats["num_rejected_steps"] > 0
    assert stats["num_jacobian_products"] >= 8
    assert stats["num_velocity_evaluations"] + stats["num_jacobian_products"] == sum(count)


@pytest.mark.parametrize(
    "flow",
    [
        GaussNewtonFlow(),
        SpectralFlow(0.5),
        DualGaussNewtonFlow(),
        Frozen(GaussNewtonFlow(), "output"),
    ],
    ids=lambda flow: type(flow).__name__,
)
@pytest.mark.parametrize("solver", ["stabilised", SOLVER])
def test_flows_that_are_refused(flow, solver, monkeypatch):
    """Before anything is computed."""
    monkeypatch.setattr(importlib.import_module("gnflow.simulate._simulate"), "evaluate_start", None)
    with pytest.raises(gn.ConfigError, match=r"real spectrum.*has_real_spectrum.*'tsit5'"):
        gn.simulate(make_problem(), mean_field(), flow, solver=solver)


@pytest.mark.parametrize("flow", [GradientFlow(), GradientFlow(3.0), Frozen(GradientFlow(), "hidden")])
def test_flows_that_say_so_have_a_symmetric_jacobian(flow):
    system = flow.system(make_problem(), mean_field())
    assert flow.dynamics.has_real_spectrum(system)
    vector, unravel = ravel_pytree(system.weights(mean_field()))
    jacobian = jax.jacfwd(lambda point: ravel_pytree(flow.velocity(0.0, unravel(point), system))[0])(vector)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-12)


class Turning(gn.flows.AbstractFlow):
    """Gradient flow of each layer's weights with a rotation of their own; says what it is not."""

    def has_real_spectrum(self, system):
        return True

    def velocity_and_diagnostics(self, time, weights, system):
        vector, unravel = ravel_pytree(jax.grad(system.train_loss)(weights))
        rest, _ = ravel_pytree(weights)
        half = len(vector) // 2
        turned = jnp.concatenate([-rest[half : 2 * half], rest[:half], jnp.zeros(len(rest) - 2 * half)])
        return unravel(-vector + 3 * turned), None


def test_a_jacobian_that_is_not_symmetric_is_named():
    """It is measured, and a run whose steps were short says so."""
    with pytest.raises(gn.SimulationError, match=r"not symmetric.*'tsit5'") as stopped:
        classify("stabilised", Turning(), max_steps=20)
    assert stopped.value.trajectory.stats["jacobian_asymmetry"] > 0.5
