"""Every flow's low-rank W on every loss: against dense matrices, and against the true Jacobian of the velocity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.flatten_util import ravel_pytree
from oracles import dense
from oracles.cases import Case, random_like

from gnflow._core import tree_add_scaled
from gnflow.flows import DualGaussNewtonFlow, Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry import Decomposition
from gnflow.geometry.damping import Constant, Schedule, SmallestEigenvalue
from gnflow.geometry.directions import Cholesky, ConjugateGradients
from gnflow.losses import LogisticLoss, SoftmaxCrossEntropy
from gnflow.problems import Problem
from gnflow.solvers._reduced import apply_functions, reduce

TIME = jnp.asarray(0.5)
HIGHEST = 3


def gradient(mobility):
    return lambda case, gram, metrics: mobility(case) * np.eye(len(gram))


def gauss_newton(metric, damping):
    """K = (H A + eps)^(-1)."""

    def gain(case, gram, metrics):
        smallest = max(np.linalg.eigvalsh(gram)[0], 0.0)
        return np.linalg.inv(metrics[metric] @ gram + damping(smallest) * np.eye(len(gram)))

    return gain


def spectral(power, shift):
    return lambda case, gram, metrics: dense.symmetric_power(gram, -power, shift)


def dual_gauss_newton(gamma):
    """K = (1 + gamma) (I + gamma H A)^(-1)."""
    return lambda case, gram, metrics: (
        (1 + gamma) * np.linalg.inv(np.eye(len(gram)) + gamma * metrics["hessian"] @ gram)
    )


# name: (flow, K of a case with the Gram matrix A and output metrics H, dense)
FLOWS = {
    "gradient": (GradientFlow(), gradient(lambda case: float(getattr(case.model, "mobility", 1.0)))),
    "identity": (
        GaussNewtonFlow(damping=SmallestEigenvalue(2.0, floor=1e-2)),
        gauss_newton("identity", lambda smallest: max(1e-2, 2 * smallest)),
    ),
    "hessian": (
        GaussNewtonFlow(metric="hessian", damping=Schedule(lambda time: 0.02 * time)),
        gauss_newton("hessian", lambda _: 0.01),
    ),
    "fisher": (
        GaussNewtonFlow(metric="fisher", damping=Constant(0.01), solver=Cholesky()),
        gauss_newton("fisher", lambda _: 0.01),
    ),
    "conjugate gradients": (
        GaussNewtonFlow(damping=Constant(0.05), solver=ConjugateGradients(rtol=1e-12)),
        gauss_newton("identity", lambda _: 0.05),
    ),
    "conjugate gradients, hessian": (
        GaussNewtonFlow("hessian", Constant(0.05), ConjugateGradients(rtol=1e-12)),
        gauss_newton("hessian", lambda _: 0.05),
    ),
    "dual": (DualGaussNewtonFlow(20.0, products="dense"), dual_gauss_newton(20.0)),
    "spectral 1/2": (SpectralFlow(power=0.5, damping=Constant(0.01)), spectral(0.5, 0.01)),
}

# Every loss, every kind of tangent; softmax Hessians are singular, and so is Huber's where a residual is beyond delta.
QUICK_CASES = [
    Case("mean field silu", "squared", 3, seed=1),
    Case("mlp depth 2, mean field", "softmax", 3, seed=2),
    Case("mean field silu", "huber", 1, seed=4),
]
SLOW_CASES = [
    Case("equinox mlp", "logistic", 3, seed=3),
    Case("frozen mean field: output", "softmax", 3, seed=5),
    Case("random features", "huber", 3, seed=6),
]
CASES = QUICK_CASES + SLOW_CASES


def dynamics(flow, case):
    """The flow as a solver sees it."""
    return (flow if case.trainable == "all" else Frozen(flow, case.trainable)).dynamics


def system_of(case, problem):
    return Frozen(GradientFlow(), case.trainable).system(problem, case.model)


def with_functions(case):
    """The flows whose functions of W are tried on a case; in turns, so that each meets several models."""
    names = list(FLOWS)
    first = 3 * CASES.index(case)
    return [names[(first + i) % len(names)] for i in range(3)]


@functools.cache
def linearisations(case):
    """For every flow the parts of W, and for the case's share of them psi(span W) x, all flows in one program."""
    system = system_of(case, case.problem)
    weights = system.weights(case.model)
    rest = random_like(weights, seed=3)
    coefficients = jnp.asarray(np.random.default_rng(4).normal(size=case.problem.y_train.size))

    def measure(system, weights, rest, coefficients):
        found = {}
        for name, (flow, _) in FLOWS.items():
            line = dynamics(flow, case).linearisation(TIME, system.tangent(weights), system, Decomposition())
            found[name] = {
                "left": line.left,
                "right": line.right,
                "rates": line.rates,
                "coefficients": line.direction.coefficients,
                "direction": dynamics(flow, case).direction(TIME, system.tangent(weights), system).coefficients,
                "left out": line.left_out + line.relative_residual,
            }
            if name in with_functions(case):
                span = 30 / jnp.max(line.rates)
                vector = reduce(line, rest, coefficients)
                plain = reduce(line, None, coefficients)
                sums = [[({k: 1.0}, vector)] for k in range(HIGHEST + 1)]
                sums.append([({2: 2.0, 3: -4.0}, vector), ({0: 0.5, 1: jnp.asarray(-1.0)}, plain)])
                found[name]["applied"] = (span, apply_functions(line, span, sums))
        return found

    found = dense.quickly(measure, system, weights, rest, coefficients)
    return rest, np.asarray(coefficients), found


@functools.cache
def output_metrics(case):
    """H of each name, (NC, NC)."""
    outputs, targets = dense.dense_case(case).outputs, case.problem.y_train
    return {
        "identity": np.eye(targets.size),
        "hessian": dense.hessian_matrix(case.problem.loss, outputs, targets),
        "fisher": dense.fisher_matrix(case.loss, outputs, delta=0.5),
    }


def dense_product(name, case):
    """K H_L, (NC, NC)."""
    jac = dense.dense_case(case).jacobian
    return FLOWS[name][1](case, jac @ jac.T, output_metrics(case)) @ output_metrics(case)["hessian"]


def tolerance(name, case):
    """Rounding; of the oracle's quadrature for the Fisher metric of Huber's loss."""
    return 1e-6 if name == "fisher" and case.loss == "huber" else 1e-10


def check_that_the_factors_diagonalise(name, case):
    found, jac = linearisations(case)[2][name], dense.dense_case(case).jacobian
    rates = np.asarray(found["rates"])
    product = np.asarray(found["right"]) @ jac @ jac.T @ np.asarray(found["left"])
    np.testing.assert_allclose(product, np.diag(rates), rtol=0, atol=1e-12 * rates.max())
    assert np.all(rates >= 0)
    assert rates.max() > 0
    assert float(found["left out"]) == 0
    # The direction that comes with it is the flow's own.
    np.testing.assert_allclose(found["coefficients"], found["direction"], rtol=1e-9, atol=1e-12)


def check_the_dense_matrix(name, case):
    found, jac = linearisations(case)[2][name], dense.dense_case(case).jacobian
    expected = jac.T @ dense_product(name, case) @ jac
    got = jac.T @ np.asarray(found["left"]) @ np.asarray(found["right"]) @ jac
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance(name, case) * np.abs(expected).max())
    # Its eigenvalues are the rates, real and not negative.
    eigenvalues = np.sort(np.linalg.eigvals(expected).real)[::-1][: len(found["rates"])]
    rates = np.sort(found["rates"])[::-1][: len(eigenvalues)]
    np.testing.assert_allclose(rates, eigenvalues, rtol=0, atol=1e-7 * rates.max())


def phi_matrices(matrix):
    """phi_0, ..., phi_HIGHEST of a matrix: the first row of blocks of exp [[A, 1, 0, ..], [0, 0, 1, ..], ..]."""
    size = len(matrix)
    blocks = np.kron(np.eye(HIGHEST + 1, k=1), np.eye(size))
    blocks[:size, :size] = matrix
    exponential = scipy.linalg.expm(blocks)
    return [exponential[:size, k * size : (k + 1) * size] for k in range(HIGHEST + 1)]


def check_functions_of_it(name, case):
    rest, coefficients, everything = linearisations(case)
    found, jac = everything[name], dense.dense_case(case).jacobian
    span, applied = found["applied"]
    phi = phi_matrices(-float(span) * jac.T @ dense_product(name, case) @ jac)
    plain = jac.T @ coefficients
    vector = dense.flat(case.leaves(rest)) + plain
    expected = [matrix @ vector for matrix in phi]
    expected.append((2 * phi[2] - 4 * phi[3]) @ vector + (0.5 * phi[0] - phi[1]) @ plain)
    amplitudes = np.asarray(found["right"]) @ jac
    for (tree, pushed), wanted in zip(applied, expected, strict=True):
        scale = 10 * tolerance(name, case) * np.abs(vector).max()
        np.testing.assert_allclose(dense.flat(case.leaves(tree)), wanted, rtol=0, atol=scale)
        # The amplitudes that come with it are those of what was returned.
        scale = 1e-10 * np.abs(amplitudes @ vector).max()
        np.testing.assert_allclose(pushed, amplitudes @ dense.flat(case.leaves(tree)), rtol=0, atol=scale)


# One test a case, so that parallel workers do not compile the same program.
@pytest.mark.parametrize(
    "case", [*QUICK_CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW_CASES)], ids=str
)
def test_it_is_the_dense_matrix_in_factors_that_diagonalise_it(case):
    for name in FLOWS:
        print(name)  # shown with a failure
        check_that_the_factors_diagonalise(name, case)
        check_the_dense_matrix(name, case)
        if name in with_functions(case):
            check_functions_of_it(name, case)


def fitted(case):
    """The case's problem with targets at which the loss has its minimum at the present outputs."""
    outputs = dense.dense_case(case).outputs
    if isinstance(case.problem.loss, SoftmaxCrossEntropy):
        targets = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    else:
        targets = 1 / (1 + np.exp(-outputs)) if isinstance(case.problem.loss, LogisticLoss) else outputs
    return Problem(case.problem.x_train, targets, loss=case.problem.loss)


# A derivative of eigh needs eigenvalues that differ, which those of a linear layer with C = 3 do not.
FITTED = [
    Case("mean field silu", "squared", 1, seed=1),
    Case("mlp depth 2, mean field", "softmax", 3, seed=2),
    Case("equinox mlp", "logistic", 3, seed=3),
]
LINEAR = Case("random features", "squared", 1, seed=7)
DIFFERENTIATED = [name for name in FLOWS if not name.startswith("conjugate")]


def jacobians(case, residual, names):
    """For the named flows W and the Jacobian of the velocity, (P, P) each, at zero residual or as it is."""
    problem = case.problem if residual else fitted(case)
    system = system_of(case, problem)
    vector, unravel = ravel_pytree(system.weights(case.model))

    def measure(system, vector):
        found = {}
        for name in names:
            moved = dynamics(FLOWS[name][0], case)

            def velocity(vector, moved=moved):
                return ravel_pytree(moved.velocity(TIME, unravel(vector), system))[0]

            line = moved.linearisation(TIME, system.tangent(unravel(vector)), system, Decomposition())
            columns = jax.vmap(lambda column: ravel_pytree(line.pull(column))[0], in_axes=1, out_axes=1)  # noqa: B023
            rows = jax.vmap(lambda direction: line.push(unravel(direction)), out_axes=1)  # noqa: B023
            jac = rows(jnp.eye(vector.size))
            matrix = -columns(line.left) @ line.right @ jac
            if name in DIFFERENTIATED:
                found[name] = (matrix, jax.jacfwd(velocity)(vector))
            else:
                size = 1e-4
                steps = size * jnp.concatenate([jnp.eye(vector.size), -jnp.eye(vector.size)])
                forward, backward = jnp.split(jax.vmap(velocity)(vector[None] + steps), 2)
                found[name] = (matrix, (forward - backward).T / (2 * size))
        return found

    return dense.quickly(measure, system, vector)


@pytest.mark.parametrize(
    ("case", "residual"),
    [
        (FITTED[0], False),
        *(pytest.param(case, False, marks=pytest.mark.slow) for case in FITTED[1:]),
        (LINEAR, True),
    ],
    ids=lambda value: str(value),
)
def test_it_is_the_true_jacobian_where_there_is_no_residual(case, residual):
    """Or where the model is linear in its weights and the loss quadratic, at any residual."""
    for name, matrices in jacobians(case, residual, tuple(FLOWS)).items():
        got, expected = map(np.asarray, matrices)
        rtol = 1e-9 if name in DIFFERENTIATED else 1e-6
        np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * np.abs(expected).max(), err_msg=name)


def test_a_residual_is_what_it_neglects():
    """The tests above could not fail if W were the Jacobian everywhere."""
    for got, expected in jacobians(FITTED[0], True, ("gradient", "identity")).values():
        assert np.abs(got - expected).max() > 1e-2 * np.abs(expected).max()


def test_what_it_is_applied_to_may_be_a_sum_of_parts():
    """rest + J^T q in two parts or one: the same vector."""
    case = CASES[0]
    system = system_of(case, case.problem)
    weights = system.weights(case.model)
    rest = random_like(weights, seed=3)
    coefficients = jnp.asarray(np.random.default_rng(4).normal(size=case.problem.y_train.size))

    def measure(system, weights, rest, coefficients):
        line = GradientFlow().linearisation(TIME, system.tangent(weights), system, Decomposition())
        split = reduce(line, rest, coefficients)
        whole = reduce(line, tree_add_scaled(rest, 1.0, line.pull(coefficients)), jnp.zeros_like(coefficients))
        return apply_functions(line, TIME, [[({1: 1.0}, split)], [({1: 1.0}, whole)]])

    (first, second), (other, same) = dense.quickly(measure, system, weights, rest, coefficients)
    np.testing.assert_allclose(dense.flat(case.leaves(first)), dense.flat(case.leaves(other)), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(second, same, rtol=1e-11, atol=1e-12)
