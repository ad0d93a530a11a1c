"""What a flow must not see (exact facts 4, 6 and 7 of docs/theory.md), at points drawn by hypothesis.

At one point, in the form of velocities; whole trajectories are tested with the integrators.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from oracles import dense
from oracles.cases import INPUT_DIM, LOSSES, make_problem

from gnflow.flows import GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry import System
from gnflow.geometry.damping import Constant
from gnflow.losses import SquaredLoss
from gnflow.models import MLP, MeanFieldNetwork

WIDTH = 5
seeds = st.integers(0, 10_000)
few = settings(derandomize=True, deadline=None, max_examples=8)
UNDAMPED = GaussNewtonFlow(damping=Constant(0.0))


def arrays(seed, num_outputs=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(WIDTH, INPUT_DIM)), rng.normal(size=WIDTH), rng.normal(size=(WIDTH, num_outputs))


def network(parts, activation="silu"):
    return MeanFieldNetwork.from_arrays(*parts, activation)


def speed_of_outputs(flow, problem, model):
    """(w', f') of the flow."""
    system = flow.system(problem, model)
    weights = system.weights(model)
    velocity = flow.velocity(0.0, weights, system)
    return velocity, np.asarray(system.tangent(weights).jvp(velocity))


@few
@given(seed=seeds, order=st.permutations(range(WIDTH)))
def test_permuting_the_particles_permutes_their_velocities(seed, order):
    problem = make_problem(SquaredLoss(), 1, seed)
    parts, order = arrays(seed), np.asarray(order)
    for flow in (GradientFlow(), GaussNewtonFlow(damping=Constant(0.01))):
        velocity, speed = speed_of_outputs(flow, problem, network(parts))
        permuted, permuted_speed = speed_of_outputs(flow, problem, network([part[order] for part in parts]))
        np.testing.assert_allclose(permuted_speed, speed, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(permuted.hidden_weight, velocity.hidden_weight[order], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(permuted.output_weight, velocity.output_weight[order], rtol=1e-8, atol=1e-10)


@few
@given(seed=seeds)
def test_duplicating_the_particles_changes_nothing_in_the_particle_metric(seed):
    problem = make_problem(SquaredLoss(), 1, seed)
    parts = arrays(seed)
    twice = [np.concatenate([part, part]) for part in parts]
    # The damping of Gauss-Newton is in units of A, which is half as large for twice the particles.
    pairs = [
        (GradientFlow(), GradientFlow()),
        (GaussNewtonFlow(damping=Constant(0.02)), GaussNewtonFlow(damping=Constant(0.01))),
    ]
    for flow, flow_of_twice in pairs:
        velocity, speed = speed_of_outputs(flow, problem, network(parts))
        doubled, doubled_speed = speed_of_outputs(flow_of_twice, problem, network(twice))
        np.testing.assert_allclose(doubled_speed, speed, rtol=1e-9, atol=1e-11)
        for half in (slice(0, WIDTH), slice(WIDTH, None)):
            np.testing.assert_allclose(doubled.hidden_weight[half], velocity.hidden_weight, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(doubled.output_weight[half], velocity.output_weight, rtol=1e-8, atol=1e-10)


def test_without_the_particle_metric_twice_the_particles_move_half_as_fast():
    problem = make_problem(SquaredLoss(), 1, seed=0)
    parts = arrays(0)
    twice = [np.concatenate([part, part]) for part in parts]
    _, speed = speed_of_outputs(GradientFlow(mobility=1.0), problem, network(parts))
    _, doubled = speed_of_outputs(GradientFlow(mobility=1.0), problem, network(twice))
    np.testing.assert_allclose(doubled, speed / 2, rtol=1e-12)


def reparametrised(parts, seed):
    """The network of `parts` with weights w = h(theta), h(theta) = Q (theta + sin(theta)/2), smooth and invertible."""
    flat, width = dense.flat(parts), len(parts[1])
    mixing = np.random.default_rng(seed).normal(size=(flat.size, flat.size)) + 3 * np.eye(flat.size)
    target = np.linalg.solve(mixing, flat)
    theta = target.copy()
    for _ in range(200):  # a contraction: |cos(theta)|/2 < 1
        theta = target - np.sin(theta) / 2

    class Reparametrised(eqx.Module):
        theta: jax.Array

        def __call__(self, x):
            w = mixing @ (self.theta + jnp.sin(self.theta) / 2)
            u, b, v = jnp.split(w, [width * INPUT_DIM, width * (INPUT_DIM + 1)])
            return jax.nn.silu(u.reshape(width, INPUT_DIM) @ x + b) @ v / width

    return Reparametrised(jnp.asarray(theta))


@pytest.mark.slow
@settings(few, max_examples=3)
@given(seed=seeds)
def test_undamped_gauss_newton_does_not_see_how_the_weights_are_parametrised(seed):
    # 12 samples, 8 weights: J J^T is singular and f' depends on the image of J (were A invertible, f' = -H^(-1) g).
    problem = make_problem(SquaredLoss(), 1, seed, num_train=12)
    parts = [part[:2] for part in arrays(seed)]
    one, other = network(parts), reparametrised(parts, seed)
    outputs = jax.vmap(one)(problem.x_train)
    np.testing.assert_allclose(outputs[:, 0], jax.vmap(other)(problem.x_train), rtol=1e-9, atol=1e-11)
    _, speed = speed_of_outputs(UNDAMPED, problem, one)
    _, other_speed = speed_of_outputs(UNDAMPED, problem, other)
    np.testing.assert_allclose(other_speed, speed, rtol=1e-5, atol=1e-6 * np.abs(speed).max())
    residual = np.asarray(problem.loss.gradient(outputs, problem.y_train))
    assert np.abs(speed + residual).max() > 1e-2 * np.abs(residual).max()

    # Gradient flow, and Gauss-Newton with damping, do see it.
    for flow in (GradientFlow(mobility=1.0), GaussNewtonFlow(damping=Constant(0.1)), SpectralFlow(power=0.5)):
        _, speed = speed_of_outputs(flow, problem, one)
        _, other_speed = speed_of_outputs(flow, problem, other)
        assert np.abs(other_speed - speed).max() > 1e-2 * np.abs(speed).max()


@few
@given(seed=seeds)
def test_undamped_gauss_newton_is_newton_in_output_space(seed):
    # Fact 1: with A invertible, f' = -(f - y)/N for H = I and -(f - y) for the Hessian of the squared loss.
    problem = make_problem(SquaredLoss(), 1, seed)
    model = network(arrays(seed))
    residual = np.asarray(jax.vmap(model)(problem.x_train) - problem.y_train)
    for metric, rate in (("identity", 1 / 4), ("hessian", 1.0), ("fisher", 1.0)):
        _, speed = speed_of_outputs(GaussNewtonFlow(metric=metric, damping=Constant(0.0)), problem, model)
        np.testing.assert_allclose(speed, -rate * residual, rtol=1e-5, atol=1e-7)


def drift(velocity, model):
    """d/dt (||u_i||^2 + b_i^2 - ||v_i||^2) for every particle, and the sizes of its two terms."""
    bias = 0.0 if model.hidden_bias is None else model.hidden_bias * velocity.hidden_bias
    inner = np.sum(model.hidden_weight * velocity.hidden_weight, axis=1) + bias
    outer = np.sum(model.output_weight * velocity.output_weight, axis=1)
    return 2 * (inner - outer), np.abs(outer).max()


@few
@given(seed=seeds, loss=st.sampled_from(sorted(LOSSES)), with_bias=st.booleans())
def test_homogeneous_particles_stay_balanced_under_gradient_flow(seed, loss, with_bias):
    problem = make_problem(LOSSES[loss], 3, seed)
    u, b, v = arrays(seed, num_outputs=3)
    for activation in ("relu", "identity"):
        model = network((u, b if with_bias else None, v), activation)
        velocity, _ = speed_of_outputs(GradientFlow(), problem, model)
        change, size = drift(velocity, model)
        np.testing.assert_allclose(change, 0.0, atol=1e-12 * max(1.0, size))
    silu = network((u, b, v))
    velocity, _ = speed_of_outputs(GradientFlow(), problem, silu)
    change, size = drift(velocity, silu)
    assert np.abs(change).max() > 1e-4 * size  # SiLU is not homogeneous


def test_balance_holds_for_every_flow_whose_velocity_is_in_the_image_of_the_transposed_jacobian():
    # u~_i . df/du~_i = v_i . df/dv_i at every sample, so -J^T a conserves it whatever the coefficients a are.
    problem = make_problem(LOSSES["softmax"], 3, seed=3)
    model = network(arrays(3, num_outputs=3), "relu")
    for flow in (GaussNewtonFlow(metric="hessian", damping=Constant(0.1)), SpectralFlow(damping=Constant(0.1))):
        velocity, _ = speed_of_outputs(flow, problem, model)
        change, size = drift(velocity, model)
        assert np.abs(change).max() < 1e-11 * max(1.0, size)


@few
@given(seed=seeds)
def test_deep_linear_layers_stay_balanced_under_gradient_flow(seed):
    problem = make_problem(SquaredLoss(), 3, seed)
    for activation, conserved in (("identity", True), ("tanh", False)):
        model = MLP(INPUT_DIM, 4, 2, 3, activation, bias=False, key=jax.random.key(seed))
        velocity, _ = speed_of_outputs(GradientFlow(), problem, model)
        weights = [np.asarray(layer.weight) for layer in model.layers]
        speeds = [np.asarray(layer.weight) for layer in velocity.layers]
        for w, next_w, dw, next_dw in zip(weights[:-1], weights[1:], speeds[:-1], speeds[1:], strict=True):
            # d/dt (W_{l+1}^T W_{l+1} - W_l W_l^T); a layer's fixed factor is in neither.
            above, below = next_w.T @ next_dw, dw @ w.T
            change = above + above.T - below - below.T
            size = max(1.0, np.abs(above).max())
            assert (np.abs(change).max() < 1e-11 * size) == conserved


@few
@given(seed=seeds, num_outputs=st.sampled_from([1, 3]))
def test_gram_matrices_are_symmetric_and_positive_semi_definite(seed, num_outputs):
    problem = make_problem(SquaredLoss(), num_outputs, seed)
    model = network(arrays(seed, num_outputs))
    system = System(problem, model)
    gram = np.asarray(system.tangent(system.weights(model)).gram())
    np.testing.assert_allclose(gram, gram.T, rtol=1e-13, atol=1e-15 * np.abs(gram).max())
    eigenvalues = np.linalg.eigvalsh(gram)
    assert eigenvalues[0] > -len(gram) * dense.EPSILON * eigenvalues[-1]
    assert eigenvalues[-1] > 0
