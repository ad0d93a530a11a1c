"""Gauss-Newton flow in output metrics that do not see all of the gradient: its velocity, its linearisation, and descent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import dense
from oracles.cases import LOSSES, Case, random_like

import gnflow as gn
from gnflow.flows import AbstractLinearisedFlow, DualGaussNewtonFlow, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry import AbstractOutputMetric, Decomposition, FisherMetric, HessianMetric, IdentityMetric
from gnflow.geometry.damping import Constant, Exponential, Schedule, SmallestEigenvalue
from gnflow.geometry.directions import AbstractDirectionSolver, Cholesky, ConjugateGradients, TruncatedEigh
from gnflow.losses import AbstractOutputFactor, DiagonalFactor, HuberLoss

TIME = jnp.zeros(())


class MatrixFactor(AbstractOutputFactor):
    """R = a dense matrix of the outputs of each sample, here singular and not symmetric."""

    root: jax.Array

    def product(self, v):
        return v @ self.root.T

    def transpose_product(self, v):
        return v @ self.root

    def whiten(self, g):
        return g @ jnp.linalg.pinv(self.root, rtol=1e-12).T


class FirstTwoMixed(AbstractOutputMetric):
    """A user's metric: of the three outputs of a sample it sees two combinations."""

    def factor(self, loss, outputs, targets):
        return MatrixFactor(jnp.asarray([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))


class EverySecond(AbstractOutputMetric):
    """Another, which sees every second output."""

    def factor(self, loss, outputs, targets):
        return DiagonalFactor((jnp.arange(outputs.size) % 2.0).reshape(outputs.shape))


METRICS = {"matrix": FirstTwoMixed(), "diagonal": EverySecond(), "hessian": HessianMetric()}
SOLVERS = {"eigh": TruncatedEigh(), "cholesky": Cholesky(), "cg": ConjugateGradients(rtol=1e-13)}
CASES = {
    "huber": Case("mean field silu", "huber", 3, seed=4),
    "squared": Case("mean field silu", "squared", 3, seed=5),
    "softmax": Case("mean field silu", "softmax", 3, seed=6),
    "logistic": Case("mean field silu", "logistic", 3, seed=7),
}
# One program each. Hessians are singular of the first and the third.
every_loss = pytest.mark.parametrize(
    "loss", [pytest.param(name, marks=() if name in ("huber", "softmax") else pytest.mark.slow) for name in CASES]
)
SHIFTS = (1e-6, 0.3)


def shifts_for(solver):
    """Conjugate gradients are for damped systems."""
    return SHIFTS[1:] if solver == "cg" else SHIFTS


def metric_matrix(name, case):
    outputs, targets = dense.dense_case(case).outputs, np.asarray(case.problem.y_train)
    if name == "hessian":
        return dense.hessian_matrix(case.problem.loss, outputs, targets)
    factor = METRICS[name].factor(case.problem.loss, jnp.asarray(outputs), jnp.asarray(targets))
    columns = jax.vmap(lambda v: factor.product(factor.transpose_product(v.reshape(outputs.shape))).reshape(-1))
    return np.asarray(columns(jnp.eye(outputs.size))).T


@functools.cache
def found(loss_name):
    """Velocities for all metrics, solvers and dampings, and with eigh the linearisations: one program a loss."""
    case = CASES[loss_name]
    system = GradientFlow().system(case.problem, case.model)
    weights = system.weights(case.model)

    def measure(system, weights):
        tangent = system.tangent(weights)
        velocities, lines = {}, {}
        for metric in METRICS:
            for solver in SOLVERS:
                for shift in (*shifts_for(solver), *([0.0] if solver == "eigh" else [])):
                    flow = GaussNewtonFlow(METRICS[metric], Constant(shift), SOLVERS[solver])
                    velocities[metric, solver, shift] = flow.velocity_and_diagnostics(TIME, weights, system)
                    if solver == "eigh":
                        line = flow.linearisation(TIME, tangent, system, Decomposition())
                        lines[metric, shift] = (line.left, line.right, line.rates)
        # A dictionary with such keys is no tree of JAX's.
        return list(velocities.items()), list(lines.items())

    keys = {}

    def arrays(system, weights):
        velocities, lines = measure(system, weights)
        keys["velocities"], keys["lines"] = [k for k, _ in velocities], [k for k, _ in lines]
        return [v for _, v in velocities], [v for _, v in lines]

    velocities, lines = dense.quickly(arrays, system, weights)
    return (
        dict(zip(keys["velocities"], velocities, strict=True)),
        dict(zip(keys["lines"], lines, strict=True)),
    )


@every_loss
@pytest.mark.parametrize("metric", METRICS)
def test_the_damped_velocity_is_that_of_the_primal_formula(loss, metric):
    """-(J^T H J + eps)^(-1) J^T g with the whole g, for every direction solver."""
    case = CASES[loss]
    oracle, matrix = dense.dense_case(case), metric_matrix(metric, case)
    missed = np.linalg.norm(oracle.gradient - dense.image_projection(matrix) @ oracle.gradient)
    sees = METRICS[metric].sees_gradient(case.problem.loss)
    assert sees == (metric == "hessian" and loss != "huber")
    assert (missed < 1e-10) if sees else (missed > 1e-2)
    for solver in SOLVERS:
        for shift in shifts_for(solver):
            velocity, how = found(loss)[0][metric, solver, shift]
            expected = dense.primal_gauss_newton(oracle.jacobian, matrix, oracle.gradient, shift)
            got = dense.flat(case.leaves(velocity))
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8 * np.abs(expected).max(), err_msg=solver)
            assert bool(how.success)
            assert float(how.relative_residual) < 1e-7
            assert oracle.gradient @ oracle.jacobian @ got < 0


@every_loss
@pytest.mark.parametrize("metric", METRICS)
def test_without_damping_only_what_the_metric_sees_moves(loss, metric):
    case = CASES[loss]
    oracle, matrix = dense.dense_case(case), metric_matrix(metric, case)
    seen = dense.image_projection(matrix) @ oracle.gradient
    expected = dense.primal_gauss_newton(oracle.jacobian, matrix, seen, 0.0)
    got = dense.flat(case.leaves(found(loss)[0][metric, "eigh", 0.0][0]))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@every_loss
@pytest.mark.parametrize("metric", METRICS)
def test_the_linearisation_is_the_dense_one(loss, metric):
    """K H_L = L Rt with Rt A L = diag(beta); with damping K = (H A + eps)^(-1), also where H does not see all of H_L."""
    case = CASES[loss]
    oracle, matrix = dense.dense_case(case), metric_matrix(metric, case)
    hessian, gram = metric_matrix("hessian", case), oracle.jacobian @ oracle.jacobian.T
    for shift in SHIFTS:
        left, right, rates = map(np.asarray, found(loss)[1][metric, shift])
        expected = np.linalg.solve(matrix @ gram + shift * np.eye(len(gram)), hessian)
        pulled = oracle.jacobian.T @ (left @ right - expected) @ oracle.jacobian
        scale = np.abs(oracle.jacobian.T @ expected @ oracle.jacobian).max()
        np.testing.assert_allclose(pulled, 0, rtol=0, atol=1e-8 * scale)
        np.testing.assert_allclose(right @ gram @ left, np.diag(rates), rtol=0, atol=1e-8 * rates.max())
        assert np.all(rates >= 0)


def oracle_velocity(oracle, case, metric):
    """The flat velocity with eps = 1e-2."""
    f, y = oracle.outputs, case.problem.y_train
    matrix = np.eye(f.size) if metric == "identity" else dense.hessian_matrix(case.problem.loss, f, y)
    return dense.primal_gauss_newton(oracle.jacobian, matrix, oracle.gradient, 1e-2)


def test_conjugate_gradients_that_are_cut_short_descend():
    """Where g = R h: h^T B z_j > 0 for every iterate (fact 5), and so for the means of them and of 0 that are returned."""
    for loss, metric in (("softmax", "hessian"), ("logistic", "hessian"), ("squared", "identity")):
        case = CASES[loss]
        system = GradientFlow().system(case.problem, case.model)
        oracle = dense.dense_case(case)

        def velocities(system, weights, metric=metric):
            flows = [GaussNewtonFlow(metric, Constant(1e-2), ConjugateGradients(max_steps=k)) for k in (1, 2, 3, 30)]
            return [flow.velocity(TIME, weights, system) for flow in flows]

        cut = dense.quickly(velocities, system, system.weights(case.model))
        slopes = [oracle.gradient @ oracle.jacobian @ dense.flat(case.leaves(velocity)) for velocity in cut]
        assert np.all(np.asarray(slopes) < 0)
        exact = oracle.gradient @ oracle.jacobian @ oracle_velocity(oracle, case, metric)
        np.testing.assert_allclose(slopes[-1], exact, rtol=1e-8)


def test_undamped_huber_may_ascend_and_damped_it_never_does():
    """dL/dt at many random weights: what `never_ascends` says is needed and holds."""
    case = CASES["huber"]
    system = GradientFlow().system(case.problem, case.model)
    weights = system.weights(case.model)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(random_like(weights, seed) for seed in range(64)))
    dampings = (0.0, 1e-7, 1e-4, 1e-1, 10.0)

    def slopes(system, weights):
        tangent = system.tangent(weights)
        steepest = tangent.vjp(system.loss.gradient(tangent.outputs, system.problem.y_train))
        found = []
        for damping in dampings:
            velocity = GaussNewtonFlow("hessian", Constant(damping)).velocity(TIME, weights, system)
            products = jax.tree.map(lambda a, b: jnp.sum(a * b), velocity, steepest)
            found.append(sum(jax.tree.leaves(products)))
        return jnp.stack(found)

    slope = np.asarray(dense.quickly(jax.vmap(slopes, in_axes=(None, 0)), system, batch))
    assert np.any(slope[:, 0] > 0)
    assert np.all(slope[:, 1:] < 0)


def test_which_flows_never_ascend():
    def law(flow, loss, kind=None):
        system = flow.system(CASES[loss].problem, CASES[loss].model)
        return flow.never_ascends(system) if kind is None else kind.never_ascends(flow, system)

    class OwnSolver(AbstractDirectionSolver):
        def solve(self, tangent, factor, whitened_gradient, damping, time, unseen_gradient=None):
            raise NotImplementedError

    for loss in LOSSES:
        assert law(GradientFlow(), loss)
        assert law(SpectralFlow(0.5), loss)
        assert law(DualGaussNewtonFlow(1.0), loss)
        assert law(DualGaussNewtonFlow(1.0, "exact", max_iterations=2), loss)
        assert not law(GradientFlow(), loss, AbstractLinearisedFlow)  # what a flow of a user says that says nothing
        for metric in ("identity", "fisher", "hessian"):
            sees = (metric, loss) != ("hessian", "huber")
            assert law(GaussNewtonFlow(metric, Constant(0.0)), loss) == sees
            assert law(GaussNewtonFlow(metric, Schedule(jnp.exp)), loss) == sees
            assert law(GaussNewtonFlow(metric, Constant(1e-3), ConjugateGradients(max_steps=2)), loss) == sees
            assert not law(GaussNewtonFlow(metric, Constant(1e-3), OwnSolver()), loss)
            for damping in (Constant(1e-9), SmallestEigenvalue(1.0, 1e-7), Exponential(1.0, 1.0, 1e-7)):
                assert law(GaussNewtonFlow(metric, damping, Cholesky()), loss)
    for damping in (Constant(0.0), SmallestEigenvalue(1.0, 0.0), Exponential(1.0, 1.0), Schedule(jnp.exp)):
        assert not damping.is_positive
    assert not law(GaussNewtonFlow(EverySecond(), Constant(0.0)), "squared")
    assert law(GaussNewtonFlow(EverySecond(), Constant(0.1)), "squared")
    assert IdentityMetric().sees_gradient(HuberLoss())
    assert FisherMetric().sees_gradient(HuberLoss())


@pytest.mark.slow
def test_a_run_from_the_linear_zone_into_the_quadratic_one():
    """All residuals beyond delta at the start, where the Hessian is 0 and the damped velocity is -J^T g/eps."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 2))
    problem = gn.Problem(x, 4 + np.sin(x[:, 0]), loss=HuberLoss(0.5))
    model = gn.models.MeanFieldNetwork(2, 12, key=jax.random.key(0))
    flow = GaussNewtonFlow("hessian", Constant(1e-3))
    assert flow.never_ascends(flow.system(problem, model))
    run = gn.simulate(problem, model, flow, stop=gn.RelativeLoss(1e-6))
    assert np.all(np.diff(run.data.train_loss) < 0)
    assert float(run.data.train_loss[-1]) <= 1.01e-6 * float(run.data.train_loss[0])
