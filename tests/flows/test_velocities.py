"""Every flow on every kind of model: its velocity against dense formulas, and what all flows promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from oracles import dense
from oracles.cases import CASES, FEW_CASES, Case, make_problem, random_like

from gnflow._core import ConfigError, ModelError
from gnflow.flows import (
    AbstractFlow,
    DualGaussNewtonFlow,
    Frozen,
    GaussNewtonFlow,
    GradientFlow,
    ReversibleGaussNewtonFlow,
    Scaled,
    SpectralFlow,
    WeightDecay,
    flow_kinds,
)
from gnflow.geometry import AbstractOutputMetric, SolveDiagnostics
from gnflow.geometry.damping import Constant, Schedule, SmallestEigenvalue
from gnflow.geometry.directions import Cholesky, ConjugateGradients
from gnflow.losses import DiagonalFactor, SquaredLoss

TIME = 0.5


def gauss_newton(metric, damping):
    """-(J^T H J + eps)^(-1) J^T g, with damping(sigma_min of A)."""

    def velocity(case, jac, gradient):
        outputs = dense.dense_case(case).outputs
        if metric == "identity":
            matrix = np.eye(len(gradient))
        elif metric == "hessian":
            matrix = dense.hessian_matrix(case.problem.loss, outputs, case.problem.y_train)
        else:
            matrix = dense.fisher_matrix(case.loss, outputs, delta=0.5)
        smallest = max(np.linalg.eigvalsh(jac @ jac.T)[0], 0.0)
        return dense.primal_gauss_newton(jac, matrix, gradient, damping(smallest))

    return velocity


def gradient_flow(mobility):
    return lambda case, jac, gradient: -mobility(case) * jac.T @ gradient


def decaying(velocity, rate):
    """The dense formula `velocity` less rate w, of all weights."""
    return lambda case, jac, gradient: velocity(case, jac, gradient) - rate * dense.flat(case.leaves(case.model))


def spectral(power, shift):
    return lambda case, jac, gradient: -jac.T @ dense.symmetric_power(jac @ jac.T, -power, shift) @ gradient


def dual_gauss_newton(gamma):
    """(1 + 1/gamma) d with d = -(J^T H J + 1/gamma)^(-1) J^T g; the whole gradient, also where H does not see it."""

    def velocity(case, jac, gradient):
        matrix = dense.hessian_matrix(case.problem.loss, dense.dense_case(case).outputs, case.problem.y_train)
        return (1 + 1 / gamma) * dense.primal_gauss_newton(jac, matrix, gradient, 1 / gamma)

    return velocity


def prox_linear(gamma):
    """(1 + 1/gamma) d with d = -gamma J^T g(f + J d), by SciPy's root of that equation for the outputs f + J d."""

    def velocity(case, jac, gradient):
        outputs, targets = dense.dense_case(case).outputs, np.asarray(case.problem.y_train)

        def predicted_gradient(u):
            return sample_gradient(case.loss, u.reshape(outputs.shape), targets).reshape(-1) / len(targets)

        def equation(u):
            return u - outputs.reshape(-1) + gamma * jac @ jac.T @ predicted_gradient(u)

        np.testing.assert_allclose(predicted_gradient(outputs.reshape(-1)), gradient, rtol=1e-12, atol=1e-14)
        found = scipy.optimize.root(equation, outputs.reshape(-1), method="lm", options={"xtol": 1e-14, "ftol": 1e-14})
        assert np.abs(equation(found.x)).max() < 1e-10
        return -(1 + gamma) * jac.T @ predicted_gradient(found.x)

    return velocity


def sample_gradient(loss, f, y):
    """grad l(f_n, y_n), (N, C), written out."""
    if loss == "softmax":
        p = np.exp(f - f.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True) - y
    if loss == "logistic":
        return 1 / (1 + np.exp(-f)) - y
    return np.clip(f - y, -0.5, 0.5) if loss == "huber" else f - y


# name: (flow, its dense formula)
FLOWS = {
    "gradient": (GradientFlow(), gradient_flow(lambda case: float(getattr(case.model, "mobility", 1.0)))),
    "gradient, mobility 2.5": (GradientFlow(mobility=2.5), gradient_flow(lambda case: 2.5)),
    "gauss-newton": (
        GaussNewtonFlow(damping=SmallestEigenvalue(2.0, floor=1e-3)),
        gauss_newton("identity", lambda smallest: max(1e-3, 2 * smallest)),
    ),
    "gauss-newton, hessian": (
        GaussNewtonFlow(metric="hessian", damping=Schedule(lambda time: 0.02 * time)),
        gauss_newton("hessian", lambda _: 0.02 * TIME),
    ),
    "natural gradient": (
        GaussNewtonFlow(metric="fisher", damping=Constant(0.01), solver=Cholesky()),
        gauss_newton("fisher", lambda _: 0.01),
    ),
    "matrix-free": (
        GaussNewtonFlow(damping=Constant(0.05), solver=ConjugateGradients(rtol=1e-12)),
        gauss_newton("identity", lambda _: 0.05),
    ),
    "dual": (DualGaussNewtonFlow(20.0, products="dense"), dual_gauss_newton(20.0)),
    "dual, matrix-free": (
        DualGaussNewtonFlow(3.0, tol=1e-12, products="matrix_free"),
        dual_gauss_newton(3.0),
    ),
    "prox-linear": (DualGaussNewtonFlow(3.0, "exact", tol=1e-12, products="dense"), prox_linear(3.0)),
    "spectral 0": (SpectralFlow(power=0.0), gradient_flow(lambda case: 1.0)),
    "spectral 1/2": (SpectralFlow(power=0.5, damping=Constant(0.01)), spectral(0.5, 0.01)),
    "spectral 1": (SpectralFlow(power=1.0, damping=Constant(0.01)), gauss_newton("identity", lambda _: 0.01)),
    "weight decay": (WeightDecay(GradientFlow(mobility=2.5), 0.3), decaying(gradient_flow(lambda case: 2.5), 0.3)),
    "gauss-newton, weight decay": (
        WeightDecay(WeightDecay(GaussNewtonFlow(damping=Constant(0.01)), {"all": 0.5}), 0.2),
        decaying(gauss_newton("identity", lambda _: 0.01), 0.7),
    ),
    "spectral, scaled velocity": (
        Scaled(SpectralFlow(power=0.5, damping=Constant(0.01)), 0.3),
        lambda case, jac, gradient: 0.3 * spectral(0.5, 0.01)(case, jac, gradient),
    ),
    "gauss-newton, scaled metric": (
        Scaled(GaussNewtonFlow(damping=Constant(0.01)), {"all": 0.3}, where="metric"),
        lambda case, jac, gradient: (
            np.sqrt(0.3) * gauss_newton("identity", lambda _: 0.01)(case, np.sqrt(0.3) * jac, gradient)
        ),
    ),
}


def wrapped(flow: AbstractFlow, case: Case) -> AbstractFlow:
    return flow if case.trainable == "all" else Frozen(flow, case.trainable)


@functools.cache
def velocities(case):
    """The weights, and for every flow w' and diagnostics at these weights and at others: compiled and batched."""
    system = wrapped(GradientFlow(), case).system(case.problem, case.model)
    weights = system.weights(case.model)
    batch = jax.tree.map(lambda a, b: jnp.asarray(np.stack([a, b])), weights, random_like(weights, seed=3))

    def measure(system, batch):
        def all_flows(weights):
            return {
                name: wrapped(flow, case).velocity_and_diagnostics(TIME, weights, system)
                for name, (flow, _) in FLOWS.items()
            }

        return jax.vmap(all_flows)(batch)

    return weights, dense.quickly(measure, system, batch)


every_pair = pytest.mark.parametrize(
    ("name", "case"), [(name, case) for case in FEW_CASES for name in FLOWS], ids=lambda value: str(value)
)


@every_pair
def test_velocities_are_those_of_the_dense_formulas(name, case):
    velocity, _ = velocities(case)[1][name]
    oracle = dense.dense_case(case)
    expected = FLOWS[name][1](case, oracle.jacobian, oracle.gradient)
    got = dense.flat(case.leaves(jax.tree.map(lambda leaf: leaf[0], velocity)))
    rtol = 1e-6 if name == "natural gradient" and case.loss == "huber" else 1e-8  # the oracle's quadrature
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@every_pair
def test_what_every_flow_promises(name, case):
    weights, found = velocities(case)
    velocity, how = found[name]
    assert jax.tree.structure(velocity) == jax.tree.structure(weights)
    for leaf, weight in zip(jax.tree.leaves(velocity), jax.tree.leaves(weights), strict=True):
        assert leaf.shape == (2, *weight.shape)
        assert leaf.dtype == jnp.float64
        assert bool(jnp.all(jnp.isfinite(leaf)))
        assert bool(jnp.any(leaf != 0))
    # Fact 5: the loss falls, unless weights decay. At these weights J^T g is not zero.
    oracle = dense.dense_case(case)
    slope = oracle.gradient @ oracle.jacobian @ dense.flat([leaf[0] for leaf in case.leaves(velocity)])
    assert slope < 0 or isinstance(FLOWS[name][0], WeightDecay)
    if name in ("gradient", "gradient, mobility 2.5", "weight decay"):
        assert how is None
    else:
        assert bool(jnp.all(how.success))
        assert bool(jnp.all(how.damping >= 0))
        least = 0 if case.loss == "huber" else 1  # Huber's Hessian may vanish at all outputs
        assert bool(jnp.all((how.rank >= least) & (how.relative_residual >= 0) & (how.relative_residual <= 1)))


def test_the_velocity_without_jit_is_the_same():
    case = FEW_CASES[0]
    weights, found = velocities(case)
    for name in ("gradient", "gauss-newton", "spectral 1/2"):
        flow = FLOWS[name][0]
        velocity = flow.velocity(TIME, weights, flow.system(case.problem, case.model))
        for leaf, other in zip(jax.tree.leaves(velocity), jax.tree.leaves(found[name][0]), strict=True):
            np.testing.assert_allclose(leaf, other[0], rtol=1e-9, atol=1e-12)


def test_on_a_rank_deficient_gram_matrix_no_flow_moves_in_unseen_directions():
    case = Case("mean field identity without bias", "squared", 1, seed=8)  # P = 15, but rank 2 on 4 samples
    jacobian = dense.dense_case(case).jacobian
    assert np.linalg.matrix_rank(jacobian, tol=1e-10) == 2
    gradient = dense.dense_case(case).gradient
    missed = gradient - jacobian @ np.linalg.pinv(jacobian, rcond=1e-8) @ gradient
    flows = {GaussNewtonFlow(damping=Constant(0.0)): 1.0, SpectralFlow(power=0.5): 0.5, SpectralFlow(power=1.0): 1.0}
    for flow, power in flows.items():
        system = flow.system(case.problem, case.model)
        weights = system.weights(case.model)
        velocity, how = flow.velocity_and_diagnostics(0.0, weights, system)
        expected = spectral(power, 0.0)(case, jacobian, gradient)
        np.testing.assert_allclose(dense.flat(case.leaves(velocity)), expected, rtol=1e-7, atol=1e-10)
        assert isinstance(how, SolveDiagnostics)
        assert int(how.rank) == 2
        share = np.linalg.norm(missed) / np.linalg.norm(gradient)
        np.testing.assert_allclose(how.relative_residual, share, rtol=1e-8)


def test_spectral_flow_ends_in_gradient_flow_and_gauss_newton():
    case = next(case for case in CASES if case.kind == "mean field silu" and case.num_outputs == 3)
    ends = {
        0.0: GradientFlow(mobility=1.0),
        1.0: GaussNewtonFlow(metric="identity", damping=SmallestEigenvalue()),
    }
    for power, other in ends.items():
        flow = SpectralFlow(power=power, damping=SmallestEigenvalue())
        system = flow.system(case.problem, case.model)
        weights = system.weights(case.model)
        left, right = (dense.flat(case.leaves(f.velocity(0.0, weights, system))) for f in (flow, other))
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_an_output_metric_of_the_users():
    class Weighted(AbstractOutputMetric):
        def factor(self, loss, outputs, targets):
            return DiagonalFactor(jnp.sqrt(1.0 + jnp.arange(outputs.size, dtype=jnp.float64)).reshape(outputs.shape))

    case = next(case for case in CASES if case.kind == "mean field silu" and case.num_outputs == 1)
    flow = GaussNewtonFlow(metric=Weighted(), damping=Constant(0.1))
    system = flow.system(case.problem, case.model)
    velocity = flow.velocity(0.0, system.weights(case.model), system)
    oracle = dense.dense_case(case)
    gradient = np.asarray(case.problem.loss.gradient(jnp.asarray(oracle.outputs), case.problem.y_train)).reshape(-1)
    expected = dense.primal_gauss_newton(oracle.jacobian, np.diag(1.0 + np.arange(4)), gradient, 0.1)
    np.testing.assert_allclose(dense.flat(case.leaves(velocity)), expected, rtol=1e-9)


def test_a_frozen_flow_wants_its_own_system():
    case = next(case for case in CASES if case.kind == "mean field silu" and case.num_outputs == 1)
    flow = Frozen(GradientFlow(), trainable="output")
    whole = GradientFlow().system(case.problem, case.model)
    with pytest.raises(ModelError, match=r"this flow moves \('output',\).*\('all',\).*flow.system"):
        flow.velocity(0.0, whole.weights(case.model), whole)
    with pytest.raises(ModelError, match="no weights called 'ouput'"):
        Frozen(GradientFlow(), trainable="ouput").system(case.problem, case.model)
    system = flow.system(case.problem, case.model)
    velocity = flow.velocity(0.0, system.weights(case.model), system)
    assert velocity.hidden_weight is None
    expected = GradientFlow().velocity(0.0, whole.weights(case.model), whole).output_weight
    np.testing.assert_allclose(velocity.output_weight, expected, rtol=1e-13)


def test_at_the_minimum_nothing_moves():
    case = next(case for case in CASES if case.kind == "mean field silu" and case.num_outputs == 1)
    problem = make_problem(SquaredLoss(), 1, seed=5)
    system = GradientFlow().system(problem, case.model)
    weights = system.weights(case.model)
    fitted = problem.__class__(problem.x_train, system.outputs(weights))
    for flow in (GradientFlow(), GaussNewtonFlow(damping=Constant(0.1)), SpectralFlow(damping=Constant(0.1))):
        velocity, how = flow.velocity_and_diagnostics(0.0, weights, flow.system(fitted, case.model))
        assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(velocity)) < 1e-13
        assert how is None or bool(how.success)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientFlow(mobility=-1.0), "mobility = -1.0"),
        (lambda: GradientFlow(mobility=float("nan")), "mobility = nan"),
        (lambda: SpectralFlow(power=-0.1), r"power = -0.1; expected a number of at least 0 and of at most 1"),
        (lambda: SpectralFlow(power=1.5), "power = 1.5"),
        (lambda: SpectralFlow(power=float("nan")), "power = nan"),
        (lambda: GaussNewtonFlow(metric="hesse"), "unknown output metric 'hesse'; did you mean 'hessian'"),
    ],
)
def test_numbers_and_names_that_make_no_flow(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_mobility_that_is_another_word(monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    with pytest.raises(ConfigError, match=r"mobility = 'modle'.*'model'"):
        GradientFlow(mobility="modle")


def test_names_of_the_flows():
    assert flow_kinds == {
        "gradient": GradientFlow,
        "gauss_newton": GaussNewtonFlow,
        "dual_gauss_newton": DualGaussNewtonFlow,
        "spectral": SpectralFlow,
        "reversible_gauss_newton": ReversibleGaussNewtonFlow,
        "frozen": Frozen,
        "weight_decay": WeightDecay,
        "scaled": Scaled,
    }
    assert Frozen(GradientFlow()).trainable == "output"
    assert GradientFlow().trainable == "all"
