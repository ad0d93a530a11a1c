"""Derivatives of velocities in the weights, also where eigenvalues coincide: with fewer weights than outputs."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gnflow as gn
from gnflow.flows import GaussNewtonFlow, SpectralFlow
from gnflow.geometry import rank_cutoff
from gnflow.geometry.damping import Constant, SmallestEigenvalue
from gnflow.geometry.directions import truncated_power_product

NUM_SAMPLES = 9
START = jnp.zeros(())


@functools.cache
def setting(width, outputs):
    """System, weights as a vector and the way back: P = width (4 + outputs), NC = 9 outputs."""
    rng = np.random.default_rng(3)
    x, labels = rng.standard_normal((NUM_SAMPLES, 3)), np.arange(NUM_SAMPLES) % max(outputs, 2)
    problem = (
        gn.Problem(x, rng.standard_normal(NUM_SAMPLES))
        if outputs == 1
        else gn.Problem(x, labels, loss=gn.losses.SoftmaxCrossEntropy())
    )
    model = gn.models.MeanFieldNetwork(
        input_dim=3, width=width, output_dim=outputs, init_scale=1.0, output_init_scale=1.0, key=jax.random.key(1)
    )
    system = GaussNewtonFlow().system(problem, model)
    return system, *ravel_pytree(system.weights(model))


def primal(system, unravel, metric, damping, power):
    """-(J^T H J + eps)^(-power) J^T g in P dimensions, by the dense Jacobian."""
    targets, loss = system.problem.y_train, system.loss

    def outputs(vector):
        return jax.vmap(eqx.combine(unravel(vector), system.structure))(system.problem.x_train).reshape(targets.shape)

    def velocity(vector):
        jac = jax.jacfwd(outputs)(vector).reshape(targets.size, -1)
        pulled = jax.grad(lambda v: loss.value(outputs(v), targets))(vector)
        columns = jac.T.reshape(-1, *targets.shape)
        curvature = columns
        if metric == "hessian":
            curvature = jax.vmap(lambda column: loss.hessian_product(outputs(vector), targets, column))(columns)
        matrix = jac.T @ curvature.reshape(jac.shape[1], -1).T
        shift = damping(jac @ jac.T)
        if power == 1:
            return -jnp.linalg.solve(matrix + shift * jnp.eye(len(matrix)), pulled)
        eigenvalues, vectors = jnp.linalg.eigh(matrix)  # of P < NC: none coincide
        return -vectors @ ((eigenvalues + shift) ** -power * (vectors.T @ pulled))

    return velocity


def fixed(value):
    return lambda gram: value


CASES = {
    "damped, P < NC": (GaussNewtonFlow(damping=Constant(1e-3)), 1, 1, "identity", fixed(1e-3), 1.0),
    "the floor of the default, P < NC": (GaussNewtonFlow(), 1, 1, "identity", fixed(1e-7), 1.0),
    "undamped, P < NC": (GaussNewtonFlow(damping=Constant(0.0)), 1, 1, "identity", fixed(0.0), 1.0),
    "sigma_min, P > NC": (
        GaussNewtonFlow(damping=SmallestEigenvalue(1.0, 1e-12)),
        3,
        1,
        "identity",
        lambda gram: jnp.linalg.eigvalsh(gram)[0],
        1.0,
    ),
    "softmax, Hessian": (GaussNewtonFlow("hessian", Constant(0.1)), 2, 3, "hessian", fixed(0.1), 1.0),
    "spectral, undamped": (SpectralFlow(0.5), 1, 1, "identity", fixed(0.0), 0.5),
    "spectral, damped": (SpectralFlow(0.3, Constant(0.1)), 1, 1, "identity", fixed(0.1), 0.3),
}


@pytest.mark.parametrize("name", CASES)
def test_the_jacobian_of_a_velocity(name):
    """As the primal formula has it; backwards too, in one case."""
    flow, width, outputs, metric, damping, power = CASES[name]
    system, start, unravel = setting(width, outputs)

    @jax.jit
    def velocity(vector):
        return ravel_pytree(flow.velocity(START, unravel(vector), system))[0]

    expected_velocity = jax.jit(primal(system, unravel, metric, damping, power))
    np.testing.assert_allclose(velocity(start), expected_velocity(start), rtol=1e-6)
    expected = np.asarray(jax.jacfwd(expected_velocity)(start))
    accuracy = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(jax.jacfwd(velocity)(start), expected, rtol=0, atol=accuracy)
    if name == "the floor of the default, P < NC":
        np.testing.assert_allclose(jax.jacrev(velocity)(start), expected, rtol=0, atol=accuracy)


@pytest.mark.parametrize(("shift", "power"), [(0.0, 1.0), (1e-3, 1.0), (0.0, 0.5), (0.2, 0.3)])
def test_against_finite_differences(shift, power):
    """B = J(x) J(x)^T of rank 3 in 7 dimensions, with two equal eigenvalues that are not zero."""
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.standard_normal((7, 3)))[0] * np.sqrt([2.0, 2.0, 0.5])
    turn, right = rng.standard_normal((7, 3)), rng.standard_normal(7)

    def product(x):
        root = jnp.asarray(left) + x * jnp.asarray(turn)
        matrix = root @ root.T
        modes = jnp.linalg.eigh(matrix)
        return truncated_power_product(
            matrix, shift * (1.0 + x), jnp.asarray(power), (1.0 + x) * jnp.asarray(right), *modes, rank_cutoff(modes[0])
        )

    zero, step = jnp.zeros(()), 1e-5
    _, found = jax.jvp(product, (zero,), (zero + 1,))
    expected = (np.asarray(product(zero + step)) - np.asarray(product(zero - step))) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
