"""Direction solvers against NumPy's solve and pseudo-inverse, in the primal (P x P) and the dual (NC x NC) form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import dense
from oracles.cases import LOSSES, NUM_TRAIN, Case, make_problem

from gnflow._core import ConfigError
from gnflow.geometry import FisherMetric, HessianMetric, IdentityMetric, System, get_output_metric
from gnflow.geometry.damping import Constant, Exponential, SmallestEigenvalue
from gnflow.geometry.directions import Cholesky, ConjugateGradients, TruncatedEigh
from gnflow.losses import DiagonalFactor, ScaledIdentity, SquaredLoss
from gnflow.models import RandomFeatures
from gnflow.problems import Problem

METRICS = {"identity": IdentityMetric(), "hessian": HessianMetric(), "fisher": FisherMetric()}
SOLVERS = {"truncated_eigh": TruncatedEigh(), "cholesky": Cholesky(), "conjugate_gradients": ConjugateGradients()}
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


def solve(solver, metric, loss, tangent, y, damping, time=START):
    factor, gradient = metric.factor(loss, tangent.outputs, y), loss.gradient(tangent.outputs, y)
    unseen = None if metric.sees_gradient(loss) else factor.unseen(gradient)
    return solver.solve(tangent, factor, factor.whiten(gradient), damping, time, unseen)


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
    and (solver != "conjugate_gradients" or (damping == 0.02 and (metric == "hessian" or loss == "squared")))
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
