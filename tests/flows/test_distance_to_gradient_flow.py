"""How far damping leaves a flow from gradient flow, against dense matrices, and what a run says of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from jax.flatten_util import ravel_pytree

import gnflow as gn
from gnflow.flows import DualGaussNewtonFlow, Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow, WeightDecay
from gnflow.flows._distance import velocity_and_distance
from gnflow.geometry.damping import Constant, Exponential
from gnflow.geometry.directions import Cholesky, ConjugateGradients

SOFTMAX, HUBER = gn.losses.SoftmaxCrossEntropy(), gn.losses.HuberLoss(0.4)
EPS = 0.05
# flow, loss, and k(lam)/k(0) in the metric that is named
CASES = {
    "identity": (GaussNewtonFlow("identity", Constant(EPS)), None, "identity"),
    "cholesky": (GaussNewtonFlow("hessian", Constant(EPS), Cholesky()), SOFTMAX, "hessian"),
    "conjugate gradients": (GaussNewtonFlow("hessian", Constant(EPS), ConjugateGradients()), SOFTMAX, "hessian"),
    "a part of g that the metric does not see": (GaussNewtonFlow("hessian", Constant(EPS)), HUBER, "hessian"),
    "schedule": (GaussNewtonFlow("identity", Exponential(EPS, 1.0)), None, "identity"),
    "weight decay": (WeightDecay(GaussNewtonFlow("identity", Constant(EPS)), 0.3), None, "identity"),
    "dual": (DualGaussNewtonFlow(1 / EPS), SOFTMAX, "hessian"),
    "frozen": (Frozen(GaussNewtonFlow("identity", Constant(EPS)), "output"), None, "identity"),
}


def measured(flow, loss=None):
    problem = make_problem(loss=loss)
    system = flow.system(problem, mean_field())
    return velocity_and_distance(flow, 0.0, system.weights(mean_field()), system), system


def dense_parts(system):
    """J (NC, P), the Hessian of the loss (NC, NC) and g (NC,)."""
    weights, unravel = ravel_pytree(system.weights(mean_field()))
    targets = system.problem.y_train

    def outputs(flat):
        return system.outputs(unravel(flat)).reshape(-1)

    def loss(f):
        return system.loss.value(f.reshape(targets.shape), targets)

    f = outputs(weights)
    return jax.jacfwd(outputs)(weights), jax.hessian(loss)(f), jax.grad(loss)(f)


@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_the_two_velocities(case):
    flow, loss, metric = CASES[case]
    (_, diagnostics), system = measured(flow, loss)
    jacobian, hessian, g = dense_parts(system)
    output_metric = np.eye(len(g)) if metric == "identity" else hessian
    gradient = jacobian.T @ g
    newton = np.linalg.solve(jacobian.T @ output_metric @ jacobian + EPS * np.eye(len(gradient)), gradient)
    expected = np.linalg.norm(newton - gradient / EPS) / np.linalg.norm(gradient / EPS)
    found = float(diagnostics.distance_to_gradient_flow)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The share of the gradient that the curvature balances, and its bound by the largest eigenvalue.
    curvature = jacobian.T @ output_metric @ jacobian
    np.testing.assert_allclose(found, np.linalg.norm(curvature @ newton) / np.linalg.norm(gradient), rtol=1e-6)
    largest = np.linalg.eigvalsh(curvature)[-1]
    assert 0.05 < found < largest / (largest + EPS)


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_of_the_spectral_family(power):
    (_, diagnostics), system = measured(SpectralFlow(power, Constant(EPS)))
    jacobian, _, g = dense_parts(system)
    values, vectors = np.linalg.eigh(jacobian @ jacobian.T)
    amplitudes = np.maximum(values, 0) * np.asarray(vectors.T @ g) ** 2
    shares = 1 - (EPS / (np.maximum(values, 0) + EPS)) ** power
    expected = np.sqrt(np.sum(amplitudes * shares**2) / np.sum(amplitudes))
    np.testing.assert_allclose(diagnostics.distance_to_gradient_flow, expected, rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize(("eps", "least", "most"), [(0.0, 1.0, 1.0), (1e-12, 0.999, 1.0), (1e6, 1e-9, 1e-4)])
def test_its_ends(eps, least, most):
    (_, diagnostics), _ = measured(GaussNewtonFlow("identity", Constant(eps)))
    assert least <= float(diagnostics.distance_to_gradient_flow) <= most * (1 + 1e-12)


@pytest.mark.slow
def test_where_there_is_no_gradient_it_is_zero():
    x = jnp.ones((3, 2))
    problem = gn.Problem(x, jax.vmap(mean_field())(x))
    flow = GaussNewtonFlow("identity", Constant(EPS))
    system = flow.system(problem, mean_field())
    _, diagnostics = velocity_and_distance(flow, 0.0, system.weights(mean_field()), system)
    assert float(diagnostics.distance_to_gradient_flow) == 0.0


def test_flows_without_a_solve_or_a_law_have_none():
    (_, diagnostics), _ = measured(GradientFlow())
    assert diagnostics is None

    class Unknown(GaussNewtonFlow):
        def gain(self, system):
            return None

    (_, diagnostics), _ = measured(Unknown("identity", Constant(EPS)))
    assert diagnostics.distance_to_gradient_flow is None
    run = gn.iterate(make_problem(), mean_field(), Unknown("identity", Constant(EPS)), step_size=0.1, num_steps=1)
    assert "largest_distance_to_gradient_flow" not in run.stats


def test_a_run_says_how_near_it_was_to_gradient_flow_and_is_as_near():
    """On the clock 1/eps, at every saved time; and the loss falls by at most as much less."""
    eps = 2.0
    damped = GaussNewtonFlow("hessian", Constant(eps))
    options = {"t1": 40.0, "stop": None, "saveat": [5.0, 10.0, 20.0], "rtol": 1e-5}
    metrics = (gn.metrics.DirectionDiagnostics(),)
    run = gn.simulate(make_problem(), mean_field(), damped, metrics=metrics, **options)
    distances = run.data.distance_to_gradient_flow.to_numpy()
    assert run.stats["largest_distance_to_gradient_flow"] == distances.max()
    assert run.stats["final_distance_to_gradient_flow"] == distances[-1]
    assert 0.01 < distances.max() < 0.2
    gradient = gn.simulate(make_problem(), mean_field(), GradientFlow(1 / eps), **options)
    fallen, most = (
        1 - trajectory.data.train_loss[1:] / trajectory.data.train_loss[0] for trajectory in (run, gradient)
    )
    ratio = (fallen / most).to_numpy()
    assert np.all(ratio < 1 + 1e-4)
    assert np.all(ratio > 1 - distances.max())
    assert np.all(ratio < 1 - 0.1 * distances.min())  # they are not the same


def test_of_steps_and_of_batches():
    problem, flow = make_problem(), GaussNewtonFlow("identity", Constant(EPS))
    whole = gn.iterate(problem, mean_field(), flow, step_size=0.1, num_steps=2)
    (_, diagnostics), _ = measured(flow)
    np.testing.assert_allclose(
        whole.data.distance_to_gradient_flow[0], diagnostics.distance_to_gradient_flow, rtol=1e-9
    )
    assert whole.stats["largest_distance_to_gradient_flow"] == float(whole.data.distance_to_gradient_flow.max())
    batches = gn.iterate(problem, mean_field(), flow, step_size=0.1, num_epochs=2, batch_size=2, key=0)
    of_batches = batches.data.batch_distance_to_gradient_flow.to_numpy()
    assert of_batches.shape == (4,)
    assert batches.stats["largest_distance_to_gradient_flow"] == of_batches.max()
