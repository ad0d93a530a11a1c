"""The exact prox-linear direction at any gamma, against a primal Newton method with every matrix formed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import dense
from oracles.cases import LOSSES, targets_for

from gnflow.geometry import AbstractTangent
from gnflow.geometry.dual import ExactOracle, QuadraticOracle
from gnflow.geometry.dual._conjugate_gradients import Solution
from gnflow.geometry.dual._step_length import step_length

SAMPLES, OUTPUTS, WEIGHTS = 8, 3, 40
GAMMAS = (1.0, 1e2, 1e4, 1e6, 1e8)
# Rank of J, decades of its singular values, size of the outputs; fewer weights than outputs conflict in any direction.
PROBLEMS = {
    "full rank": (24, 3.0, 1.0),
    "rank deficient": (9, 2.0, 1.0),
    "ill-conditioned": (24, 5.0, 1.0),
    "outputs far out": (24, 2.0, 300.0),
    "one direction": (1, 0.0, 30.0),
}


class MatrixTangent(AbstractTangent):
    """Outputs with J as a matrix, for weights in one vector."""

    outputs: jax.Array
    matrix: jax.Array

    def jvp(self, displacement):
        return (self.matrix @ displacement).reshape(self.outputs.shape)

    def vjp(self, coefficients):
        return self.matrix.T @ coefficients.reshape(-1)

    def cross_gram(self, other):
        return self.matrix @ other.matrix.T


@functools.cache
def drawn(name, problem):
    """A tangent and targets."""
    rank, decades, size = PROBLEMS[problem]
    rng = np.random.default_rng([list(LOSSES).index(name), list(PROBLEMS).index(problem)])
    count = SAMPLES * OUTPUTS
    left = np.linalg.qr(rng.normal(size=(count, count)))[0][:, :rank]
    right = np.linalg.qr(rng.normal(size=(WEIGHTS, WEIGHTS)))[0][:, :rank]
    matrix = np.sqrt(count) * left * np.logspace(0, -decades, rank) @ right.T
    outputs = size * rng.normal(size=(SAMPLES, OUTPUTS))
    targets = jnp.asarray(targets_for(LOSSES[name], rng, SAMPLES, OUTPUTS))
    return MatrixTangent(jnp.asarray(outputs), jnp.asarray(matrix)), targets


@functools.cache
def solver(name, way, max_iterations=None):
    loss = LOSSES[name]

    def solve(tangent, targets, gamma, tol, initial=None):
        return ExactOracle(max_iterations, tol, way).solve(tangent, loss, targets, gamma, initial)

    return jax.jit(solve, compiler_options=dense.QUICK)


@functools.cache
def expected(name, problem, gamma):
    tangent, targets = drawn(name, problem)
    value = lambda outputs: LOSSES[name].value(outputs, targets)  # noqa: E731
    gradient, hessian = (jax.jit(f(value), compiler_options=dense.QUICK) for f in (jax.grad, jax.hessian))
    return dense.prox_linear_direction(
        np.asarray(tangent.matrix), np.asarray(tangent.outputs), gradient, hessian, gamma
    )


def objective(name, problem, gamma, d):
    """P(d)."""
    tangent, targets = drawn(name, problem)
    return float(LOSSES[name].value(tangent.outputs + tangent.jvp(jnp.asarray(d)), targets)) + d @ d / (2 * gamma)


@pytest.mark.parametrize("way", ["matrix_free", "dense"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_direction_is_right_at_any_gamma(name, way):
    for problem in PROBLEMS:
        tangent, targets = drawn(name, problem)
        for gamma in GAMMAS:
            right = expected(name, problem, gamma)
            for tol in (1e-8, 1e-12):
                found = solver(name, way)(tangent, targets, gamma, tol)
                d, how = np.asarray(found.displacement(tangent)), found.diagnostics
                where = f"{problem}, gamma = {gamma:g}, tol = {tol:g}"
                assert bool(how.success), where
                assert np.linalg.norm(d - right) < 1e-6 * np.linalg.norm(right), where
                change, right_change = tangent.matrix @ d, tangent.matrix @ right
                assert np.linalg.norm(change - right_change) < 1e-6 * np.linalg.norm(right_change), where
                assert 0 <= float(how.relative_duality_gap) < 1e-6, where
                least = objective(name, problem, gamma, right)
                left = objective(name, problem, gamma, d) - least
                rounding = 1e-13 * objective(name, problem, gamma, np.zeros(WEIGHTS))
                assert -rounding <= left <= float(how.duality_gap) + rounding, where


@pytest.mark.parametrize("way", ["matrix_free", "dense"])
def test_every_step_lowers_the_objective_and_every_iterate_descends(way):
    for name in ("softmax", "huber"):
        for problem in ("full rank", "outputs far out"):
            tangent, targets = drawn(name, problem)
            gamma, loss = 1e8, objective(name, problem, 1e8, np.zeros(WEIGHTS))
            least = objective(name, problem, gamma, expected(name, problem, gamma))
            values = [loss]
            for count in (1, 2, 4, 8):
                found = solver(name, way, count)(tangent, targets, gamma, 1e-8)
                d, how = np.asarray(found.displacement(tangent)), found.diagnostics
                assert int(how.iterations) <= count
                assert bool(how.success)  # cutting off is what was asked for
                values.append(objective(name, problem, gamma, d))
                slope = d @ tangent.vjp(LOSSES[name].gradient(tangent.outputs, targets))
                # L + <g, J d> <= L(f + J d) <= L - ||d||^2/(2 gamma).
                assert slope <= -(d @ d) / (2 * gamma)
                assert values[-1] - least <= float(how.duality_gap)
                # Of P(0) - P(d) + gap, the most there can be.
                most = loss - values[-1] + float(how.duality_gap)
                np.testing.assert_allclose(how.relative_duality_gap, float(how.duality_gap) / most, rtol=1e-6)
            assert np.all(np.diff(values) < 0)


def test_the_first_step_is_along_the_quadratic_models_direction():
    for problem in PROBLEMS:
        tangent, targets = drawn("softmax", problem)
        first = solver("softmax", "dense", 1)(tangent, targets, 1e4, 1e-8).coefficients
        whole = QuadraticOracle(products="dense").solve(tangent, LOSSES["softmax"], targets, 1e4).coefficients
        length = jnp.vdot(first, whole) / jnp.vdot(whole, whole)
        np.testing.assert_allclose(first, length * whole, rtol=0, atol=1e-9 * float(jnp.abs(first).max()))


def test_what_rounding_takes_is_said():
    """At gamma = 1e12 the last digits of the dual variables are 1e-4 of d, though Newton's method has converged."""
    tangent, targets = drawn("squared", "rank deficient")
    for gamma, success in ((1e8, True), (1e12, False)):
        found = solver("squared", "dense")(tangent, targets, gamma, 1e-8)
        assert bool(found.diagnostics.success) == success
        assert int(found.diagnostics.iterations) < 10
    off = np.asarray(found.displacement(tangent)) - expected("squared", "rank deficient", gamma)
    assert np.linalg.norm(off) > 1e-6 * np.linalg.norm(expected("squared", "rank deficient", gamma))


def test_a_start_from_another_gamma_is_taken_where_it_is_better_than_none():
    tangent, targets = drawn("softmax", "full rank")
    solve = solver("softmax", "dense")
    near, cold = solve(tangent, targets, 1e6, 1e-8), solve(tangent, targets, 2e6, 1e-8)
    # The same d, and not the same dual variables: d = -(gamma/N) J^T alpha.
    warm = solve(tangent, targets, 2e6, 1e-8, near.dual_variables / 2)
    assert int(warm.diagnostics.iterations) < int(cold.diagnostics.iterations) - 3
    bad = solve(tangent, targets, 2e6, 1e-8, -1e3 * near.dual_variables)
    assert int(bad.diagnostics.iterations) == int(cold.diagnostics.iterations)
    for found in (warm, bad):
        np.testing.assert_allclose(found.hessian_outputs, cold.hessian_outputs, rtol=1e-7)


def test_a_solve_whose_steps_cannot_be_solved_for_says_so(monkeypatch):
    """Two conjugate-gradient iterations a step, where the squares of 24 singular values span 1e10."""
    monkeypatch.setattr("gnflow.geometry.dual._exact._INNER_ITERATIONS", (2, 0))
    tangent, targets = drawn("squared", "ill-conditioned")
    loss, gamma = LOSSES["squared"], 1e8
    found = ExactOracle(products="matrix_free", tol=1e-3).solve(tangent, loss, targets, gamma)
    d, right = np.asarray(found.displacement(tangent)), expected("squared", "ill-conditioned", gamma)
    assert np.linalg.norm(d - right) > 0.1 * np.linalg.norm(right)
    assert not bool(found.diagnostics.success)
    gap = float(found.diagnostics.duality_gap)
    values = [objective("squared", "ill-conditioned", gamma, one) for one in (right, d, 0 * d)]
    assert values[0] < values[1] < values[2]
    assert values[1] - values[0] <= gap
    assert d @ tangent.vjp(loss.gradient(tangent.outputs, targets)) < 0


def test_a_small_step_is_no_end_where_its_system_was_not_solved(monkeypatch):
    """A start that is not the end, and steps of a solver that goes nowhere."""
    tangent, targets = drawn("squared", "full rank")
    start = solver("squared", "dense")(tangent, targets, 1e2, 1e-8).dual_variables / 1e2

    def lazy(product, factor, gradient, gamma, tol, most, **options):
        whitened = (1e-12 - 1) * factor.whiten(gradient)
        along = gradient + factor.product(whitened)
        residual = -gamma * factor.transpose_product(product(along)) - whitened
        assert jnp.shape(along) == (SAMPLES, OUTPUTS)
        return Solution(whitened, residual, jnp.ones(()), jnp.ones(()), jnp.ones((), dtype=int))

    def solve():
        oracle = ExactOracle(products="matrix_free")
        return oracle.solve(tangent, LOSSES["squared"], targets, 1e4, start)

    assert bool(solve().diagnostics.success)
    monkeypatch.setattr("gnflow.geometry.dual._exact.conjugate_gradients", lazy)
    found = solve()
    assert not bool(found.diagnostics.success)
    assert float(found.diagnostics.relative_duality_gap) > 1e-3


def test_outputs_that_are_not_numbers_are_no_success():
    tangent, targets = drawn("softmax", "full rank")
    broken = MatrixTangent(tangent.outputs.at[0, 0].set(jnp.nan), tangent.matrix)
    for count in (None, 2):
        found = solver("softmax", "dense", count)(broken, targets, 1e4, 1e-8)
        assert not bool(found.diagnostics.success)


@pytest.mark.parametrize(
    ("slope", "near"),
    [
        (lambda t: t - 1.0, 1.0),  # the quadratic model is right
        (lambda t: t - 0.3, 0.3),
        (lambda t: t - 6.0, 6.0),
        (lambda t: 0.0 * t - 1.0, 8.0),  # falls for ever
        (lambda t: jnp.expm1(t) - 5.0, np.log(6.0)),
        (lambda t: jnp.where(t > 1e-9, 1.0, -1.0), 1e-9),  # a kink: no step has a small slope
        (lambda t: jnp.where(t > 0.9, 1.0, -1e-3), 0.9),
        (lambda t: jnp.where(t > 0.01, 0.01, -1.0), 0.01),  # nearly flat at t = 1, where the function is higher
    ],
)
def test_a_step_length_lowers_a_convex_function_to_near_its_minimum(slope, near):
    found = float(step_length(slope))
    assert 0.5 * near < found < 2 * near
    between = np.linspace(0, found, 10_001)
    assert np.trapezoid(jax.vmap(slope)(jnp.asarray(between)), between) < 0


@pytest.mark.parametrize("slope", [lambda t: t, lambda t: t + 1.0, lambda t: t * jnp.nan])
def test_there_is_no_step_where_the_function_does_not_fall(slope):
    assert float(step_length(slope)) == 0
