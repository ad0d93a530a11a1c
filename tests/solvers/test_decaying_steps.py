"""W = -lambda I + low rank: its functions, steps that are exact, and orders where they are not."""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
from facts.recording import make_problem, mean_field
from jax.flatten_util import ravel_pytree
from solvers.running import NONLINEAR, NUM_LINEAR, errors_at_fixed_steps, integrate, number, rows, slope

import gnflow as gn
from gnflow.flows import AbstractLinearisedFlow, GaussNewtonFlow, GradientFlow, SpectralFlow, WeightDecay
from gnflow.geometry import Decomposition
from gnflow.geometry.damping import Constant
from gnflow.solvers import ExponentialRosenbrock, ExponentialRungeKutta, LinearisedTerm, LowRankKvaerno5
from gnflow.solvers._implicit import LowRankChord, _ChordState
from gnflow.solvers._linearised import carry_error
from gnflow.solvers._reduced import apply_functions, reduce

HIGHEST = 3
GROUPS = {"hidden_weight": 0.6, "output": 0.1}
BY_FIELD = {"hidden_weight": 0.6, "output_weight": 0.1}


def term_of(flow, problem=None, model=None):
    problem, model = make_problem() if problem is None else problem, mean_field() if model is None else model
    return LinearisedTerm(flow, flow.system(problem, model))


@pytest.mark.parametrize("rate", [0.3, 1e-9, 40.0])
def test_functions_of_w_are_those_of_the_dense_matrix(rate):
    term = term_of(WeightDecay(GradientFlow(), rate))
    weights = term.system.weights(mean_field())
    flat, unravel = ravel_pytree(weights)
    rng = np.random.default_rng(0)
    rest, coefficients = unravel(jnp.asarray(rng.normal(size=flat.size))), jnp.asarray(rng.normal(size=8))
    span = 1.5

    @jax.jit
    def measure(weights, rest, coefficients):
        line = term.linearise(0.0, weights, Decomposition())
        jac = jax.jacfwd(lambda w: term.system.outputs(unravel(w)).reshape(-1))(ravel_pytree(weights)[0])
        vector = reduce(line, rest, coefficients)
        sums = [[({k: 1.0}, vector)] for k in range(HIGHEST + 1)]
        found = apply_functions(line, jnp.asarray(span), [*sums, [({2: 2.0, 3: -4.0}, vector), ({1: 0.5}, vector)]])
        return jac, line.left, line.right, [(ravel_pytree(tree)[0], amplitudes) for tree, amplitudes in found]

    jac, left, right, found = measure(weights, rest, coefficients)
    jac, left, right = map(np.asarray, (jac, left, right))
    dense = -rate * np.eye(flat.size) - jac.T @ left @ right @ jac
    x = np.asarray(ravel_pytree(rest)[0]) + jac.T @ np.asarray(coefficients)
    # phi_k by the exponential of [[z, x, 0, ...], [0, shift]]: Hochbruck and Ostermann, Acta Numerica 2010.
    size = flat.size
    large = np.zeros((size + HIGHEST, size + HIGHEST))
    large[:size, :size], large[:size, size] = span * dense, x
    large[range(size, size + HIGHEST - 1), range(size + 1, size + HIGHEST)] = 1.0
    exponential = scipy.linalg.expm(large)
    phi = [exponential[:size, :size] @ x, *(exponential[:size, size + k] for k in range(HIGHEST))]
    expected = [*phi, 2 * phi[2] - 4 * phi[3] + 0.5 * phi[1]]
    for (tree, amplitudes), right_one in zip(found, expected, strict=True):
        np.testing.assert_allclose(tree, right_one, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(amplitudes, right @ jac @ right_one, rtol=1e-8, atol=1e-10)


def test_w_is_the_jacobian_where_the_model_is_linear():
    """Of one rate all of it; of several with the smallest, the rest is the remainder's."""
    model, problem = random_features(), linear_problem()
    weights = model_weights = GradientFlow().system(problem, model).weights(model)
    flat, unravel = ravel_pytree(model_weights)
    for rates in (0.4, {"output": 0.4}):
        term = term_of(WeightDecay(GradientFlow(2.0), rates), problem, model)
        line = term.linearise(0.0, weights, Decomposition())
        jac = jax.jacfwd(lambda w, term=term: term.system.outputs(unravel(w)).reshape(-1))(flat)
        whole = jax.jacfwd(lambda w, term=term: ravel_pytree(term.velocity(0.0, unravel(w)))[0])(flat)
        low_rank = jac.T @ line.left @ line.right @ jac
        np.testing.assert_allclose(whole, -0.4 * np.eye(flat.size) - low_rank, atol=1e-12)
    term = term_of(WeightDecay(GradientFlow(), GROUPS))
    line = term.linearise(0.0, term.system.weights(mean_field()), Decomposition())
    assert float(line.decay) == 0.0  # of the bias
    assert term_of(GradientFlow()).linearise(0.0, term.system.weights(mean_field()), Decomposition()).decay is None


def dense_parts(rate):
    """A term with one rate at its start: the linearisation, W as a matrix, the vector of weights and how to fold it."""
    term = term_of(WeightDecay(GradientFlow(), rate))
    weights = term.system.weights(mean_field())
    flat, unravel = ravel_pytree(weights)

    @jax.jit
    def measure(weights):
        jac = jax.jacfwd(lambda w: term.system.outputs(unravel(w)).reshape(-1))(ravel_pytree(weights)[0])
        return term.linearise(0.0, weights, Decomposition()), jac

    line, jac = measure(weights)
    matrix = -rate * np.eye(flat.size) - np.asarray(jac.T @ line.left @ line.right @ jac)
    return term, line, matrix, flat, unravel


def test_one_iteration_of_the_implicit_solver_solves_what_w_says():
    """fn(y) = (I - c W) y - b, from any y."""
    term, line, matrix, flat, unravel = dense_parts(0.7)
    gain, rng = 2.5, np.random.default_rng(1)
    system, right = np.eye(flat.size) - gain * matrix, rng.normal(size=flat.size)
    nothing = jnp.asarray(jnp.inf)
    state = _ChordState(line, jnp.asarray(gain), nothing, nothing, jnp.asarray(0))

    def residual(y, args):
        return unravel(jnp.asarray(system) @ ravel_pytree(y)[0] - right), None

    start = unravel(jnp.asarray(rng.normal(size=flat.size)))
    found, _, _ = LowRankChord(term, line, 1e-6).step(residual, start, None, {}, state, frozenset())
    np.testing.assert_allclose(ravel_pytree(found)[0], np.linalg.solve(system, right), rtol=1e-8, atol=1e-10)


def test_a_displacement_decays_with_the_weights():
    """As exp(h W) makes it where W is the whole Jacobian: of a model that is linear in its weights."""
    model, problem, rate = random_features(), linear_problem(), 0.6
    term = term_of(WeightDecay(GradientFlow(2.0), rate), problem, model)
    weights = term.system.weights(model)
    flat, unravel = ravel_pytree(weights)
    error = 1e-3 * np.random.default_rng(2).normal(size=flat.size)

    @jax.jit
    def carry(weights, error, length):
        line = term.linearise(0.0, weights, Decomposition())
        return carry_error(term, line, 0.0, weights, length, error, jnp.asarray(0.5))

    jac = jax.jacfwd(lambda w: term.system.outputs(unravel(w)).reshape(-1))(flat)
    matrix = -rate * np.eye(flat.size) - 2 * np.asarray(jac.T @ jac) / NUM_LINEAR
    for length in (0.01, 1.0, 100.0):
        found = carry(weights, unravel(jnp.asarray(error)), number(length))
        expected = scipy.linalg.expm(length * matrix) @ error
        np.testing.assert_allclose(ravel_pytree(found)[0], expected, rtol=1e-7, atol=1e-15)


def random_features():
    return gn.models.RandomFeatures(2, 10, 1, "tanh", output_init_scale=1.0, key=jr.key(0))


def linear_problem():
    rng = np.random.default_rng(5)
    return gn.Problem(rng.normal(size=(NUM_LINEAR, 2)), rng.normal(size=NUM_LINEAR))


DAMPING = 1e-3
GAINS = {
    "gradient": (GradientFlow(3.0), lambda lam: 3.0 + 0 * lam),
    "spectral": (SpectralFlow(0.5, Constant(DAMPING)), lambda lam: (lam + DAMPING) ** -0.5),
    "gauss-newton": (GaussNewtonFlow("identity", Constant(DAMPING)), lambda lam: 1 / (lam + DAMPING)),
}


@pytest.mark.parametrize("name", GAINS)
def test_one_step_of_any_length_is_exact(name):
    """w' = -F^T psi(A) (F w - y)/N - rate w by its eigenvectors; at the end ridge regression, for gradient flow."""
    flow, gain = GAINS[name]
    model, problem, rate = random_features(), linear_problem(), 0.05
    term = term_of(WeightDecay(flow, rate), problem, model)
    weights = term.system.weights(model)
    start, unravel = ravel_pytree(weights)
    features = np.asarray(jax.jacfwd(lambda w: term.system.outputs(unravel(w)).reshape(-1))(start))
    targets = np.asarray(problem.y_train).reshape(-1)
    eigenvalues, vectors = np.linalg.eigh(features @ features.T)
    kernel = vectors @ np.diag(gain(eigenvalues)) @ vectors.T / NUM_LINEAR
    matrix = features.T @ kernel @ features + rate * np.eye(start.size)
    limit = np.linalg.solve(matrix, features.T @ kernel @ targets)
    rates, modes = np.linalg.eigh(matrix)
    for time in (1e-3, 1.0, 30.0, 1e4, 1e12):
        found = integrate(term, ExponentialRungeKutta(), weights, number(time), number(time)).ys
        expected = limit + modes @ (np.exp(-rates * time) * (modes.T @ (np.asarray(start) - limit)))
        np.testing.assert_allclose(rows(found)[0], expected, rtol=1e-9, atol=1e-11)
    if name == "gradient":
        ridge = np.linalg.solve(
            features.T @ features + rate / 3.0 * NUM_LINEAR * np.eye(start.size), features.T @ targets
        )
        np.testing.assert_allclose(rows(found)[0], ridge, rtol=1e-9)


@pytest.mark.slow
def test_integrals_inside_a_step_see_the_decay():
    """The path of weights that only decay: ||w_0|| (1 - exp(-rate t)), in one step."""
    flow = WeightDecay(GradientFlow(0.0), 0.7)
    model, problem = random_features(), linear_problem()
    system = flow.system(problem, model)
    weights = system.weights(model)

    def integrands(velocity):
        return {"path": jnp.linalg.norm(velocity.output_weight)}

    term = LinearisedTerm(flow, system, integrands)
    y0 = (weights, {"path": jnp.zeros(())})
    found = integrate(term, ExponentialRungeKutta(), y0, number(40.0), number(40.0)).ys
    size = float(jnp.linalg.norm(weights.output_weight))
    np.testing.assert_allclose(found[1]["path"], [size * -np.expm1(-0.7 * 40)], rtol=1e-9)
    np.testing.assert_allclose(found[0].output_weight[0], weights.output_weight * np.exp(-28.0), atol=1e-15)


def decaying(name, rate, decay):
    case = NONLINEAR[name]
    return dataclasses.replace(case, flow=WeightDecay(case.flow, rate), decay=decay)


UNIFORM = dict.fromkeys(("hidden_weight", "hidden_bias", "output_weight"), 0.8)
ORDERS = {
    "one rate": decaying("gradient", 0.8, UNIFORM),
    "by group": decaying("gradient", GROUPS, BY_FIELD),
    "gauss-newton by group": decaying("gauss-newton, lifted damping", GROUPS, BY_FIELD),
}


@pytest.mark.parametrize(
    "name", ["by group", *(pytest.param(n, marks=pytest.mark.slow) for n in ("one rate", "gauss-newton by group"))]
)
def test_order_four_at_the_end_and_inside_steps(name):
    counts = (16, 32, 64)
    at_end, inside = errors_at_fixed_steps(ORDERS[name], ExponentialRungeKutta(), counts)
    assert at_end[-1] < 1e-7
    np.testing.assert_allclose(slope(counts, at_end), 4, atol=0.15)
    np.testing.assert_allclose(slope(counts, inside), 4, atol=0.25)


@pytest.mark.parametrize("solver", [ExponentialRosenbrock(), LowRankKvaerno5()], ids=["rosenbrock", "kvaerno5"])
def test_the_other_linearised_solvers(solver):
    case = ORDERS["by group"]
    controller = diffrax.PIDController(rtol=1e-7, atol=1e-9)
    found = integrate(case.term, solver, case.weights, number(case.end), number(0.01), controller=controller)
    np.testing.assert_allclose(rows(found.ys)[-1], case.reference(case.end), rtol=1e-5, atol=1e-6)


class Pulled(AbstractLinearisedFlow):
    """A flow of the user's with a decay of its own, of single entries."""

    inner: GradientFlow

    def direction(self, time, tangent, system):
        return self.inner.direction(time, tangent, system)

    def linearisation(self, time, tangent, system, decomposition):
        return self.inner.linearisation(time, tangent, system, decomposition)

    def decay(self, weights, system):
        return jax.tree.map(lambda leaf: jnp.linspace(0.0, 1.0, leaf.size).reshape(leaf.shape), weights)


def test_a_flow_of_the_users_states_its_own():
    flow = Pulled(GradientFlow(2.0))
    model, problem = random_features(), linear_problem()
    run = gn.simulate(problem, model, flow, t1=5.0, stop=None, solver="exponential", rtol=1e-6)
    system = flow.system(problem, model)
    start, unravel = ravel_pytree(system.weights(model))
    features = np.asarray(jax.jacfwd(lambda w: system.outputs(unravel(w)).reshape(-1))(start))
    matrix = 2 * features.T @ features / NUM_LINEAR + np.diag(np.linspace(0.0, 1.0, start.size))
    limit = np.linalg.solve(matrix, 2 * features.T @ np.asarray(problem.y_train).reshape(-1) / NUM_LINEAR)
    expected = limit + scipy.linalg.expm(-5.0 * matrix) @ (np.asarray(start) - limit)
    np.testing.assert_allclose(np.asarray(run.model.output_weight).reshape(-1), expected, rtol=1e-4, atol=1e-5)
