"""Direction solvers against NumPy's solve and pseudo-inverse, in the primal (P x P) and the dual (NC x NC) form."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import dense
from oracles.cases import LOSSES, NUM_TRAIN, Case, make_problem

from gnflow._core import ConfigError
from gnflow.geometry import AbstractOutputMetric, FisherMetric, HessianMetric, IdentityMetric, System, get_output_metric
from gnflow.geometry.damping import AbstractDamping, Constant, Exponential, LargestEigenvalue, SmallestEigenvalue, Trace
from gnflow.geometry.directions import (
    Cholesky,
    ConjugateGradients,
    DirectionEquation,
    MeanKernel,
    Nystrom,
    TruncatedEigh,
    preconditioner_kinds,
)
from gnflow.geometry.directions._smoothed import smoothed_conjugate_gradients
from gnflow.geometry.directions._spectra import largest_eigenvalue
from gnflow.losses import DiagonalFactor, ScaledIdentity, SoftmaxCrossEntropy, SquaredLoss
from gnflow.models import MLP, RandomFeatures
from gnflow.problems import Problem

METRICS = {"identity": IdentityMetric(), "hessian": HessianMetric(), "fisher": FisherMetric()}
ITERATIVE = {
    "conjugate_gradients": ConjugateGradients(),
    "mean_kernel": ConjugateGradients(preconditioner=MeanKernel()),
    "nystrom": ConjugateGradients(preconditioner=Nystrom(5)),
}
SOLVERS = {"truncated_eigh": TruncatedEigh(), "cholesky": Cholesky(), **ITERATIVE}
START = jnp.zeros(())


@functools.cache
def setting(loss_name):
    """Loss, tangent, Jacobian, outputs, targets and gradient of one mean-field network: P = 30, NC = 12."""
    case = Case("mean field silu", loss_name, 3, seed=31)
    system = System(case.problem, case.model)
    oracle = dense.dense_case(case)
    return (
        case.problem.loss,
        system.tangent(system.weights(case.model)),
        oracle.jacobian,
        oracle.outputs,
        case.problem.y_train,
        oracle.gradient,
    )


def metric_matrix(metric, loss_name, f, y):
    loss = LOSSES[loss_name]
    if metric == "identity":
        return np.eye(f.size)
    return dense.hessian_matrix(loss, f, y) if metric == "hessian" else dense.fisher_matrix(loss_name, f, delta=0.5)


class ScaledMetric(AbstractOutputMetric):
    """H = scale I."""

    scale: jax.Array

    def factor(self, loss, outputs, targets):
        return ScaledIdentity(self.scale)

    def sees_gradient(self, loss):
        return True


def solve(solver, metric, loss, tangent, y, damping, time=START):
    factor, gradient = metric.factor(loss, tangent.outputs, y), loss.gradient(tangent.outputs, y)
    unseen = None if metric.sees_gradient(loss) else factor.unseen(gradient)
    return solver.solve(DirectionEquation(tangent, factor, factor.whiten(gradient), damping, time, unseen))


def flat_image(jacobian, direction):
    return -jacobian.T @ np.asarray(direction.coefficients).reshape(-1)


ALL = [
    (solver, metric, loss, damping)
    for loss in LOSSES
    for metric in METRICS
    for solver in SOLVERS
    for damping in (0.0, 1e-7, 0.02)
    # Undamped, only the truncated solver handles a singular H A; conjugate gradients are compiled anew every time.
    if (damping > 0 or solver == "truncated_eigh" or (loss == "squared" and solver == "cholesky"))
    and (solver not in ITERATIVE or (damping == 0.02 and (metric == "hessian" or loss == "squared")))
]


@pytest.mark.parametrize(("solver", "metric", "loss_name", "damping"), ALL)
def test_dual_and_primal_forms_agree(solver, metric, loss_name, damping):
    loss, tangent, jacobian, f, y, gradient = setting(loss_name)
    matrix = metric_matrix(metric, loss_name, f, y)
    # Huber's Hessian does not see the outputs in the linear zone; else g is in the image of the metric.
    seen = dense.image_projection(matrix) @ gradient
    if METRICS[metric].sees_gradient(loss):
        np.testing.assert_allclose(seen, gradient, atol=1e-12)
    else:
        assert (loss_name, metric) == ("huber", "hessian")
        assert np.linalg.norm(seen - gradient) > 1e-2
    if damping == 0:
        gradient = seen  # what is not seen is left out
    rtol = 1e-6 if (metric, loss_name) == ("fisher", "huber") else 1e-8  # the oracle's quadrature
    direction = solve(SOLVERS[solver], METRICS[metric], loss, tangent, y, Constant(damping))

    expected = dense.primal_gauss_newton(jacobian, matrix, gradient, damping)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(flat_image(jacobian, direction), expected, rtol=rtol, atol=rtol * scale)
    diagnostics = direction.diagnostics
    assert bool(diagnostics.success)
    assert float(diagnostics.damping) == damping
    assert float(diagnostics.relative_residual) < 1e-9
    if damping > 0:
        system = matrix @ jacobian @ jacobian.T + damping * np.eye(f.size)
        coefficients = np.linalg.solve(system, gradient)
        got = np.asarray(direction.coefficients).reshape(-1)
        np.testing.assert_allclose(got, coefficients, rtol=rtol, atol=rtol * np.abs(coefficients).max())


@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("metric", METRICS)
def test_the_rank_is_that_of_the_whitened_gram(loss_name, metric):
    loss, tangent, jacobian, f, y, _ = setting(loss_name)
    matrix = metric_matrix(metric, loss_name, f, y)
    expected = np.linalg.matrix_rank(matrix @ jacobian @ jacobian.T, tol=1e-10)
    direction = solve(TruncatedEigh(), METRICS[metric], loss, tangent, y, Constant(0.1))
    assert int(direction.diagnostics.rank) == expected
    if loss_name == "softmax" and metric != "identity":
        assert expected == f.size - NUM_TRAIN  # singular along 1 in every sample
    if loss_name == "huber" and metric == "hessian":
        assert expected == int(np.sum(np.abs(f - y) <= 0.5)) < f.size


def duplicated_sample():
    """Two equal inputs with different targets: rank NC - 1, and a gradient that J^T does not wholly see."""
    problem = make_problem(SquaredLoss(), 1, seed=32)
    x = np.asarray(problem.x_train).copy()
    x[3] = x[2]
    return Problem(x, problem.y_train), Case("mean field silu", "squared", 1, seed=32).model


def few_particles():
    """Two random features for four samples: rank 2."""
    problem = make_problem(SquaredLoss(), 1, seed=33)
    return problem, RandomFeatures(2, 2, output_init_scale=1.0, key=jax.random.key(33))


@pytest.mark.parametrize(("make", "rank"), [(duplicated_sample, NUM_TRAIN - 1), (few_particles, 2)])
def test_a_rank_deficient_gram_matrix_gives_the_minimum_norm_direction(make, rank):
    problem, model = make()
    system = System(problem, model)
    tangent = system.tangent(system.weights(model))
    if make is duplicated_sample:
        leaves = Case("mean field silu", "squared", 1, seed=32).leaves
    else:
        leaves = Case("random features", "squared", 1, seed=33).leaves
    jacobian = dense.jacobian(model, leaves, problem.x_train)
    gradient = np.asarray(problem.loss.gradient(tangent.outputs, problem.y_train)).reshape(-1)
    pseudo_inverse = np.linalg.pinv(jacobian, rcond=1e-8)
    missed = gradient - jacobian @ pseudo_inverse @ gradient
    for metric in (IdentityMetric(), HessianMetric()):
        scale = 1.0 if isinstance(metric, IdentityMetric) else 1 / NUM_TRAIN
        direction = solve(TruncatedEigh(), metric, problem.loss, tangent, problem.y_train, Constant(0.0))
        expected = -pseudo_inverse @ gradient / scale
        got = flat_image(jacobian, direction)
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
        # No other weight displacement that fits as well is shorter.
        assert np.linalg.norm(got) <= np.linalg.norm(expected) * (1 + 1e-9)
        diagnostics = direction.diagnostics
        assert bool(diagnostics.success)
        assert int(diagnostics.rank) == rank
        share = np.linalg.norm(missed) / np.linalg.norm(gradient)
        assert share > 0.01
        np.testing.assert_allclose(diagnostics.relative_residual, share, rtol=1e-8)


@pytest.mark.parametrize("make", [duplicated_sample, few_particles])
def test_cholesky_does_not_pass_over_a_singular_matrix_in_silence(make):
    problem, model = make()
    system = System(problem, model)
    tangent = system.tangent(system.weights(model))
    diagnostics = solve(Cholesky(), IdentityMetric(), problem.loss, tangent, problem.y_train, Constant(0.0)).diagnostics
    assert not bool(diagnostics.success) or int(diagnostics.rank) < NUM_TRAIN
    damped = solve(Cholesky(), IdentityMetric(), problem.loss, tangent, problem.y_train, Constant(0.1))
    reference = solve(TruncatedEigh(), IdentityMetric(), problem.loss, tangent, problem.y_train, Constant(0.1))
    assert bool(damped.diagnostics.success)
    assert int(damped.diagnostics.rank) == NUM_TRAIN  # the damped matrix has no small pivots
    assert int(reference.diagnostics.rank) < NUM_TRAIN  # the eigenvalues tell all the same
    np.testing.assert_allclose(damped.coefficients, reference.coefficients, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_zero_gradient_has_the_zero_direction(solver):
    loss, tangent, _, f, _, _ = setting("squared")
    direction = solve(SOLVERS[solver], IdentityMetric(), loss, tangent, jnp.asarray(f), Constant(0.1))
    # The tangent's outputs and the oracle's differ in the last digit.
    assert float(jnp.max(jnp.abs(direction.coefficients))) < 1e-12
    exact = solve(SOLVERS[solver], IdentityMetric(), loss, tangent, tangent.outputs, Constant(0.1))
    np.testing.assert_array_equal(exact.coefficients, jnp.zeros(f.shape))
    assert float(exact.diagnostics.relative_residual) == 0.0
    assert bool(exact.diagnostics.success)


def test_conjugate_gradients_refuse_damping_by_the_smallest_eigenvalue():
    loss, tangent, _, _, y, _ = setting("squared")
    with pytest.raises(ConfigError, match=r"SmallestEigenvalue.*TruncatedEigh"):
        solve(ConjugateGradients(), IdentityMetric(), loss, tangent, y, SmallestEigenvalue())


def test_conjugate_gradients_say_when_they_ran_out_of_iterations():
    loss, tangent, _, _, y, _ = setting("squared")
    short = solve(ConjugateGradients(max_steps=2), IdentityMetric(), loss, tangent, y, Constant(1e-4)).diagnostics
    assert not bool(short.success)
    assert int(short.rank) == 2
    assert float(short.relative_residual) > 1e-6


def test_solvers_under_jit():
    loss, tangent, *_, y, _ = setting("softmax")
    for solver in SOLVERS.values():
        plain = solve(solver, HessianMetric(), loss, tangent, y, Constant(0.02))
        compiled = dense.quickly(
            lambda t, targets, s=solver: solve(s, HessianMetric(), loss, t, targets, Constant(0.02)), tangent, y
        )
        np.testing.assert_allclose(compiled.coefficients, plain.coefficients, rtol=1e-9, atol=1e-12)


def test_every_preconditioner_is_among_the_solvers():
    assert preconditioner_kinds == {"mean_kernel": MeanKernel, "nystrom": Nystrom}
    assert set(preconditioner_kinds) < set(ITERATIVE)


@functools.cache
def classes():
    """A softmax network with three outputs and 20 samples: P = 211, NC = 60, condition number 1e5."""
    rng = np.random.default_rng(5)
    problem = Problem(rng.normal(size=(20, 4)), rng.integers(0, 3, 20), loss=SoftmaxCrossEntropy())
    model = MLP(4, 10, 2, 3, activation="tanh", key=jax.random.key(5))
    system = System(problem, model)
    tangent = system.tangent(system.weights(model))
    return problem, tangent, np.asarray(tangent.gram())


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["identity", "hessian"])
@pytest.mark.parametrize("preconditioner", [MeanKernel(), Nystrom(30)])
def test_preconditioners_save_iterations_and_leave_the_solution(preconditioner, metric):
    """Against NumPy's solve."""
    problem, tangent, gram = classes()
    matrix = (
        np.eye(60) if metric == "identity" else dense.hessian_matrix(problem.loss, tangent.outputs, problem.y_train)
    )
    eps = 1e-5 * np.linalg.eigvals(matrix @ gram).real.max()
    gradient = np.asarray(problem.loss.gradient(tangent.outputs, problem.y_train)).reshape(-1)
    expected = np.linalg.solve(matrix @ gram + eps * np.eye(60), gradient)
    iterations = {}
    for name, solver in {"plain": None, "preconditioned": preconditioner}.items():
        solver = ConjugateGradients(rtol=1e-9, preconditioner=solver)
        direction = solve(solver, METRICS[metric], problem.loss, tangent, problem.y_train, Constant(eps))
        got = np.asarray(direction.coefficients).reshape(-1)
        np.testing.assert_allclose(got, expected, atol=1e-6 * np.abs(expected).max())
        assert bool(direction.diagnostics.success)
        iterations[name] = int(direction.diagnostics.iterations)
    assert 0 < iterations["preconditioned"] < 0.6 * iterations["plain"]


@pytest.mark.parametrize("solver", ITERATIVE)
def test_the_reported_residual_is_that_of_the_solution(solver):
    problem, tangent, gram = classes()
    gradient = np.asarray(problem.loss.gradient(tangent.outputs, problem.y_train)).reshape(-1)
    solver = ConjugateGradients(rtol=1e-2, max_steps=200, preconditioner=ITERATIVE[solver].preconditioner)
    for limit, met in ((200, True), (1, False)):
        limited = dataclasses.replace(solver, max_steps=limit)
        direction = solve(limited, IdentityMetric(), problem.loss, tangent, problem.y_train, Constant(1e-2))
        a = np.asarray(direction.coefficients).reshape(-1)
        residual = np.linalg.norm(gram @ a + 1e-2 * a - gradient) / np.linalg.norm(gradient)
        np.testing.assert_allclose(direction.diagnostics.relative_residual, residual, rtol=1e-9)
        assert bool(direction.diagnostics.success) == (residual < 1e-2) == met


@pytest.mark.slow
def test_one_output_has_its_own_kernel():
    """There the preconditioner is the matrix, and one iteration the solution."""
    case = Case("mean field silu", "squared", 1, seed=34)
    system = System(case.problem, case.model)
    tangent, y = system.tangent(system.weights(case.model)), case.problem.y_train
    for metric in ("identity", "hessian"):
        direction = solve(ITERATIVE["mean_kernel"], METRICS[metric], system.loss, tangent, y, Constant(1e-3))
        assert int(direction.diagnostics.iterations) == 1


@pytest.mark.parametrize("rank", [0, -3])
def test_a_bad_rank_is_refused(rank):
    with pytest.raises(ConfigError, match=f"rank = {rank}"):
        Nystrom(rank)


def test_a_rank_beyond_the_outputs_is_refused():
    loss, tangent, *_, y, _ = setting("squared")
    with pytest.raises(ConfigError, match=r"Nystrom\(rank=13\), but there are only N C = 12 outputs.*TruncatedEigh"):
        solve(ConjugateGradients(preconditioner=Nystrom(13)), IdentityMetric(), loss, tangent, y, Constant(1.0))


@pytest.mark.parametrize(
    "solver", ["mean_kernel", *(pytest.param(s, marks=pytest.mark.slow) for s in ("conjugate_gradients", "nystrom"))]
)
def test_the_derivative_of_an_iterative_solve_is_that_of_the_solution(solver):
    loss, tangent, jacobian, _, y, gradient = setting("squared")

    def solution(scale):
        return solve(SOLVERS[solver], ScaledMetric(scale), loss, tangent, y, Constant(0.02)).coefficients

    moved = jax.jvp(solution, (jnp.asarray(2.0),), (jnp.ones(()),))[1]
    system = 2.0 * jacobian @ jacobian.T + 0.02 * np.eye(len(gradient))
    expected = -np.linalg.solve(system, jacobian @ jacobian.T @ np.linalg.solve(system, gradient))
    np.testing.assert_allclose(np.asarray(moved).reshape(-1), expected, atol=1e-7 * np.abs(expected).max())


@pytest.mark.slow
def test_smoothed_residuals_never_rise_and_end_sooner():
    """Against the plain iteration written out in NumPy."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(80, 80)))[0]
    matrix, right = vectors @ np.diag(np.logspace(0, -5, 80)) @ vectors.T, rng.normal(size=80)
    plain, x, r = [], np.zeros(80), right
    search, square = r, r @ r
    for _ in range(60):
        image = matrix @ search
        x, r = x + square / (search @ image) * search, r - square / (search @ image) * image
        search, square = r + (r @ r) / square * search, r @ r
        plain.append(np.linalg.norm(right - matrix @ x))
    smoothed = []
    for steps in range(1, 61):
        answer, taken = smoothed_conjugate_gradients(
            lambda v: jnp.asarray(matrix) @ v, jnp.asarray(right), lambda v: v, 0.0, steps
        )
        assert int(taken) == steps
        smoothed.append(np.linalg.norm(right - matrix @ np.asarray(answer)))
    assert np.any(np.diff(plain) > 0)
    assert np.all(np.diff([np.linalg.norm(right), *smoothed]) <= 1e-9)
    assert np.all(np.asarray(smoothed) <= np.asarray(plain) * (1 + 1e-9))


def test_the_largest_eigenvalue_without_a_matrix():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(50, 9)) * np.logspace(0, -2, 9)
    matrix = jnp.asarray(rows @ rows.T)
    got = largest_eigenvalue(lambda v: (matrix @ v.reshape(-1)).reshape(v.shape), (25, 2))
    np.testing.assert_allclose(got, np.linalg.eigvalsh(matrix)[-1], rtol=1e-6)
    assert float(largest_eigenvalue(lambda v: 0 * v, (4,))) == 0.0
    np.testing.assert_allclose(largest_eigenvalue(lambda v: 3 * v, (4,)), 3.0, rtol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("metric", ["identity", "hessian"])
def test_damping_by_the_largest_eigenvalue_and_by_the_trace_means_those_of_h_a(metric, solver):
    loss, tangent, jacobian, f, y, gradient = setting("logistic")
    matrix = metric_matrix(metric, "logistic", f, y)
    eigenvalues = np.linalg.eigvals(matrix @ jacobian @ jacobian.T).real
    for rule, eps in ((LargestEigenvalue(0.03), 0.03 * eigenvalues.max()), (Trace(0.03), 0.03 * eigenvalues.sum())):
        direction = solve(SOLVERS[solver], METRICS[metric], loss, tangent, y, rule)
        np.testing.assert_allclose(direction.diagnostics.damping, eps, rtol=1e-6)
        expected = dense.primal_gauss_newton(jacobian, matrix, gradient, eps)
        np.testing.assert_allclose(flat_image(jacobian, direction), expected, rtol=1e-5, atol=1e-7)


class MeanEigenvalue(AbstractDamping):
    """A rule of a user's, which every solver can serve."""

    def __call__(self, time, spectrum):
        return spectrum.trace / NUM_TRAIN


class MedianEigenvalue(AbstractDamping):
    """A rule of a user's that reads all eigenvalues."""

    def __call__(self, time, spectrum):
        return spectrum.all[spectrum.all.size // 2]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("metric", ["identity", "hessian"])
def test_damping_by_the_trace_and_by_all_eigenvalues_of_h_a(metric, solver):
    loss, tangent, jacobian, f, y, _ = setting("softmax")
    product = metric_matrix(metric, "softmax", f, y) @ jacobian @ jacobian.T
    direction = solve(SOLVERS[solver], METRICS[metric], loss, tangent, y, MeanEigenvalue())
    np.testing.assert_allclose(direction.diagnostics.damping, np.trace(product) / NUM_TRAIN, rtol=1e-10)
    if isinstance(SOLVERS[solver], ConjugateGradients):
        with pytest.raises(ConfigError, match=r"MedianEigenvalue.*TruncatedEigh"):
            solve(SOLVERS[solver], METRICS[metric], loss, tangent, y, MedianEigenvalue())
        return
    direction = solve(SOLVERS[solver], METRICS[metric], loss, tangent, y, MedianEigenvalue())
    expected = np.sort(np.linalg.eigvals(product).real)[len(product) // 2]
    np.testing.assert_allclose(direction.diagnostics.damping, max(expected, 0.0), rtol=1e-8, atol=1e-12)


def smallest_of_a(tangent):
    return np.linalg.eigvalsh(tangent.gram())[0]


@pytest.mark.parametrize("solver", ["truncated_eigh", "cholesky"])
def test_damping_by_the_smallest_eigenvalue_means_that_of_a(solver):
    loss, tangent, jacobian, f, y, gradient = setting("logistic")
    smallest = smallest_of_a(tangent)
    for metric in ("identity", "hessian"):
        direction = solve(SOLVERS[solver], METRICS[metric], loss, tangent, y, SmallestEigenvalue(factor=2.0))
        np.testing.assert_allclose(direction.diagnostics.damping, 2 * smallest, rtol=1e-9)
        matrix = metric_matrix(metric, "logistic", f, y)
        expected = dense.primal_gauss_newton(jacobian, matrix, gradient, 2 * smallest)
        np.testing.assert_allclose(flat_image(jacobian, direction), expected, rtol=1e-6, atol=1e-8)
    # H = I/N: the eigenvalues at hand are those of A/N.
    loss, tangent, *_, y, _ = setting("squared")
    direction = solve(SOLVERS[solver], METRICS["hessian"], loss, tangent, y, SmallestEigenvalue(factor=2.0))
    np.testing.assert_allclose(direction.diagnostics.damping, 2 * smallest_of_a(tangent), rtol=1e-9)
    floored = solve(SOLVERS[solver], METRICS["identity"], loss, tangent, y, SmallestEigenvalue(1.0, floor=0.5))
    assert float(floored.diagnostics.damping) == 0.5


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_schedule_gets_the_flow_time(solver):
    loss, tangent, _, _, y, _ = setting("squared")
    rule = Exponential(start=1.0, rate=0.5, floor=0.01)
    diagnostics = solve(SOLVERS[solver], IdentityMetric(), loss, tangent, y, rule, jnp.asarray(2.0)).diagnostics
    np.testing.assert_allclose(diagnostics.damping, np.exp(-1.0), rtol=1e-14)


def test_output_metrics_by_name():
    for name, metric in METRICS.items():
        assert type(get_output_metric(name)) is type(metric)
        assert get_output_metric(metric) is metric
    with pytest.raises(ConfigError, match=r"unknown output metric 'hesian'; did you mean 'hessian'"):
        get_output_metric("hesian")
    f, y = jnp.ones((2, 1)), jnp.zeros((2, 1))
    assert isinstance(IdentityMetric().factor(SquaredLoss(), f, y), ScaledIdentity)
    assert isinstance(HessianMetric().factor(LOSSES["huber"], f, y), DiagonalFactor)
