"""The flow of dual Gauss-Newton directions: its limits, its clock, what it equals, and its linearisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from oracles import dense
from oracles.cases import FEW_CASES, NUM_TRAIN, Case

import gnflow as gn
from gnflow._core import ConfigError, tree_add_scaled
from gnflow.flows import DualGaussNewtonFlow, GaussNewtonFlow, GradientFlow
from gnflow.geometry import Decomposition, System
from gnflow.geometry.damping import Constant
from gnflow.models import MeanFieldNetwork

NETWORKS = [Case("mean field silu", "softmax", 3, seed=41), Case("mean field silu", "squared", 3, seed=42)]
LIMITS = (1e-8, 1e9)
UNDAMPED = {"squared": 0.0, "softmax": 1e-9}


def compared(case):
    """The flows of one case that are compared with each other."""
    found = {
        "gradient": GradientFlow(mobility=1.0),
        "gauss-newton": GaussNewtonFlow("hessian", Constant(UNDAMPED[case.loss])),
        "hessian 1/2": GaussNewtonFlow("hessian", Constant(1 / 2)),
        "identity N/2": GaussNewtonFlow("identity", Constant(NUM_TRAIN / 2)),
        "gamma 2": DualGaussNewtonFlow(2.0),
    }
    for model in ("quadratic", "exact"):
        found[f"gamma -> 0, {model}"] = DualGaussNewtonFlow(LIMITS[0], model)
    found["gamma -> infinity"] = DualGaussNewtonFlow(LIMITS[1], products="dense")
    found |= {f"cut off {count}": DualGaussNewtonFlow(1e3, max_iterations=count) for count in (0, 1, 4)}
    return found


@functools.cache
def velocities(case):
    """w' of each of them, flat."""
    system = System(case.problem, case.model)

    def measure(system, weights):
        return {name: flow.velocity(0.0, weights, system) for name, flow in compared(case).items()}

    found = dense.quickly(measure, system, system.weights(case.model))
    return {name: dense.flat(case.leaves(velocity)) for name, velocity in found.items()}


@pytest.mark.parametrize("case", NETWORKS, ids=str)
def test_it_lies_between_gradient_and_gauss_newton_flow(case):
    found = velocities(case)

    def check(name, expected, rtol):
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=rtol * np.abs(expected).max(), err_msg=name)

    check("gamma -> 0, quadratic", found["gradient"], 1e-7)
    check("gamma -> 0, exact", found["gradient"], 1e-7)
    check("gamma -> infinity", found["gauss-newton"], 1e-5)
    check("gamma 2", (1 + 1 / 2) * found["hessian 1/2"], 1e-10)
    if case.loss == "squared":
        check("gamma 2", (1 + 1 / 2) * NUM_TRAIN * found["identity N/2"], 1e-10)
    # The start of the iterations is the gradient, of the length that gamma gives it.
    check("cut off 0", (1 + 1e3) * found["gradient"], 1e-12)
    for count in (0, 1, 4):
        assert found[f"cut off {count}"] @ found["gradient"] > 0
    assert np.abs(found["gradient"] - found["gauss-newton"]).max() > 0.1 * np.abs(found["gradient"]).max()


@pytest.mark.slow
def test_a_step_of_theta_is_the_direction_itself():
    """It minimises L(f + J d) + ||d||^2/(2 gamma): no step beside it is better."""
    case, gamma = NETWORKS[0], 5.0
    system = System(case.problem, case.model)
    weights = system.weights(case.model)
    tangent = system.tangent(weights)

    def objective(d):
        square = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(d))
        return system.loss.value(tangent.outputs + tangent.jvp(d), system.problem.y_train) + square / (2 * gamma)

    velocity = DualGaussNewtonFlow(gamma, "exact").velocity(0.0, weights, system)
    step = jax.tree.map(lambda leaf: gamma / (1 + gamma) * leaf, velocity)
    slope = dense.flat(case.leaves(jax.grad(objective)(step)))
    scale = np.abs(dense.flat(case.leaves(velocity))).max()
    np.testing.assert_allclose(slope, 0, atol=1e-9 * scale)
    assert float(objective(step)) < float(objective(jax.tree.map(jnp.zeros_like, step)))


@pytest.mark.parametrize("loss", ["softmax", "squared"])
def test_the_linearisation_of_the_exact_model_is_its_jacobian_if_the_network_is_linear(loss):
    """At any residual and with any loss, for H is taken where the direction leads."""
    case = Case("random features", loss, 3, seed=43)
    flow = DualGaussNewtonFlow(8.0, "exact", tol=1e-13, products="dense")
    system = System(case.problem, case.model)
    vector, unravel = ravel_pytree(system.weights(case.model))

    def measure(system, vector):
        def velocity(vector):
            return ravel_pytree(flow.velocity(0.0, unravel(vector), system))[0]

        line = flow.linearisation(jnp.zeros(()), system.tangent(unravel(vector)), system, Decomposition())
        columns = jax.vmap(lambda column: ravel_pytree(line.pull(column))[0], in_axes=1, out_axes=1)
        jac = jax.vmap(lambda direction: line.push(unravel(direction)), out_axes=1)(jnp.eye(vector.size))
        size = 1e-4
        steps = size * jnp.concatenate([jnp.eye(vector.size), -jnp.eye(vector.size)])
        forward, backward = jnp.split(jax.lax.map(velocity, vector[None] + steps), 2)
        return -columns(line.left) @ line.right @ jac, (forward - backward).T / (2 * size), line.rates

    got, expected, rates = map(np.asarray, dense.quickly(measure, system, vector))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert np.all(rates >= 0)


@pytest.mark.slow
def test_a_frozen_part_and_a_cut_off_solve_have_a_linearisation():
    case = FEW_CASES[0]
    system = System(case.problem, case.model)
    weights = system.weights(case.model)
    short, whole = (
        flow.linearisation(jnp.zeros(()), system.tangent(weights), system, Decomposition())
        for flow in (DualGaussNewtonFlow(9.0, max_iterations=1), DualGaussNewtonFlow(9.0))
    )
    np.testing.assert_allclose(short.rates, whole.rates, rtol=1e-10, atol=1e-12)
    change = tree_add_scaled(
        short.pull(short.direction.coefficients.reshape(-1)), -1.0, whole.pull(whole.direction.coefficients.reshape(-1))
    )
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(change)) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, r"gamma = 0.0; expected a finite number above 0.*GradientFlow"),
        ({"gamma": float("inf")}, r"gamma = inf.*GaussNewtonFlow\('hessian'\)"),
        ({"gamma": float("nan")}, "gamma = nan"),
        ({"model": "exakt"}, "unknown model of a dual direction 'exakt'; did you mean 'exact'"),
        ({"max_iterations": -3}, "max_iterations = -3"),
        ({"model": "exact", "max_iterations": 0}, "max_iterations = 0"),
        ({"gamma": "10"}, "gamma = '10'"),
        ({"tol": -1.0}, "tol = -1.0"),
        ({"tol": None}, "tol = None"),
        ({"products": "free"}, "products = 'free'"),
    ],
)
def test_numbers_and_names_that_make_no_dual_flow(options, message, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    with pytest.raises(ConfigError, match=message):
        DualGaussNewtonFlow(**options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"model": "exact"}, {"max_iterations": 2}], ids=str)
def test_it_runs_to_convergence(options):
    """The squared loss to 1e-6 of its start with the solver that is chosen by itself; the loss falls at every save."""
    key = jax.random.key(3)
    problem = gn.problems.teacher_student(n_train=6, n_test=5, input_dim=2, teacher_width=2, key=key)
    model = MeanFieldNetwork(2, 40, key=key)
    flow = DualGaussNewtonFlow(1e3, **options)
    found = gn.simulate(problem, model, flow, stop=gn.RelativeLoss(1e-6), max_steps=2000)
    assert found.result.code is gn.ResultCode.STOP_RULE_MET
    losses = found.data.train_loss.values
    assert np.all(np.diff(losses) <= 1e-12 * losses[0])
    assert losses[-1] <= 1.01e-6 * losses[0]
    assert found.stats["solver"] == "exponential"
