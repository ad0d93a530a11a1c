"""The Lipschitz constant of the Jacobian: suprema by dense search, K against random and against the worst pairs of the ball."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import equinox_mlp, jacobian, make_problem, mean_field, mlp
from jax.flatten_util import ravel_pytree

import gnflow as gn
from gnflow.flows import Frozen, GradientFlow
from gnflow.geometry import System
from gnflow.models import Linearised, MeanFieldNetwork, RandomFeatures, activation_names, get_activation
from gnflow.theory._lipschitz import (
    consistent_radius,
    estimate_jacobian_lipschitz,
    jacobian_lipschitz,
)

SMOOTH = [name for name in activation_names if name != "relu"]


def test_every_activation_has_its_suprema():
    assert all(get_activation(name).derivative_bounds is not None for name in activation_names)


@pytest.mark.parametrize("name", SMOOTH)
def test_suprema_by_dense_maximisation(name):
    """At least what a fine grid finds (s'' by differentiating s', which is coded by hand), and no more than rounded up."""
    activation = get_activation(name)
    z = jnp.linspace(-40, 40, 200_001)
    first = np.abs(activation.value_and_derivative(z)[1]).max()
    derivative = jax.vmap(jax.grad(lambda point: activation.value_and_derivative(point)[1]))
    second = np.abs(derivative(z)).max()
    bounds = activation.derivative_bounds
    for found, bound in ((first, bounds.first), (second, bounds.second)):
        assert found <= bound * (1 + 1e-14)
        assert bound <= found + 1e-7


# Which weights move, and the network: bias, outputs, scaling.
NETWORKS = {
    "all": ("all", {}),
    "three outputs": ("all", {"output_dim": 3}),
    "no bias, NTK scaling": ("all", {"bias": False, "output_exponent": 0.5, "output_scale": 3.0}),
    "hidden": ("hidden", {"output_dim": 2}),
    "bias alone": ("hidden_bias", {}),
    "bias and output": (("hidden_bias", "output"), {"activation": "tanh"}),
}


def network_system(trainable, options):
    settings = {"activation": "silu", "init_scale": 1.0, "output_init_scale": 1.0} | options
    model = MeanFieldNetwork(2, 3, key=jax.random.key(0), **settings)
    system = System(make_problem(num_outputs=settings.get("output_dim", 1)), model, trainable)
    return system, system.weights(model)


@eqx.filter_jit
def jacobian_at(system, unravel, flat):
    """J (NC, P) at flat weights, by forward mode through the model's own outputs."""
    return jax.jacfwd(lambda vector: system.outputs(unravel(vector)).reshape(-1))(flat)


def jacobian_of(system, weights):
    """Flat weights -> J."""
    unravel = shared_unravel(jax.tree.structure(weights), tuple(leaf.shape for leaf in jax.tree.leaves(weights)))
    return lambda flat: jacobian_at(system, unravel, jnp.asarray(flat))


@functools.cache
def shared_unravel(tree, shapes):
    """One function for each structure, so that one program serves all weights of it."""
    return ravel_pytree(jax.tree.unflatten(tree, [jnp.zeros(shape) for shape in shapes]))[1]


def in_ball(rng, center, radius):
    """Half of the points on the sphere, where the worst pairs lie."""
    direction = rng.normal(size=center.shape)
    length = 1.0 if rng.random() < 0.5 else rng.random()
    return center + radius * length * direction / np.linalg.norm(direction)


def worst_ratio(system, weights, radius, tries, seed=0):
    """The largest ||J_w - J_w'||/||w - w'|| over pairs: random ones, and close ones along the direction stretched most."""
    rng, function = np.random.default_rng(seed), jacobian_of(system, weights)
    center, worst = np.asarray(ravel_pytree(weights)[0]), 0.0
    for _ in range(tries):
        here, there = in_ball(rng, center, radius), in_ball(rng, center, radius)
        for _ in range(4):
            difference = np.asarray(function(there)) - np.asarray(function(here))
            worst = max(worst, np.linalg.norm(difference, 2) / np.linalg.norm(there - here))
            top = np.linalg.svd(difference)[2][0]
            step = 0.02 * radius * (1 if rng.random() < 0.5 else -1)
            here = center + (here - center) * min(1.0, 0.97 * radius / max(np.linalg.norm(here - center), 1e-300))
            there = here + step * top
    return worst


@pytest.mark.parametrize("radius", [0.05, 1.0, 4.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_pair_of_the_ball_exceeds_the_bound(name, radius):
    system, weights = network_system(*NETWORKS[name])
    bound = jacobian_lipschitz(system, weights, radius)
    found = worst_ratio(system, weights, radius, tries=30)
    assert bound.rigorous
    assert 0 < found <= bound.value
    # And not idle: an eighth would be seen to be wrong.
    assert found > bound.value / 8


@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "silu"])
def test_no_pair_exceeds_it_for_any_activation(name):
    system, weights = network_system("all", {"activation": name})
    bound = jacobian_lipschitz(system, weights, 1.0)
    assert 0 < worst_ratio(system, weights, 1.0, tries=15) <= bound.value


def one_particle(activation, hidden, output):
    x = jnp.array([[1.2, -0.7]])
    model = MeanFieldNetwork.from_arrays(jnp.full((1, 2), hidden), jnp.zeros(1), jnp.array([[output]]), activation)
    return gn.Problem(x, jnp.zeros((1, 1))), model


def test_the_part_of_the_output_layer_is_attained():
    """At u = v = 0 with tanh, s' = 1 is its supremum and s'' = 0: near this point no smaller constant will do."""
    problem, model = one_particle("tanh", 0.0, 0.0)
    system = System(problem, model)
    bound = jacobian_lipschitz(system, system.weights(model), 1e-4)
    found = worst_ratio(system, system.weights(model), 1e-4, tries=5)
    assert 0.999 * bound.value < found <= bound.value


def test_the_part_of_the_hidden_layer_is_attained():
    """At u = 0 silu has its largest curvature; with the output layer fixed only that counts."""
    problem, model = one_particle("silu", 0.0, -2.0)
    system = System(problem, model, "hidden")
    bound = jacobian_lipschitz(system, system.weights(model), 1e-4)
    found = worst_ratio(system, system.weights(model), 1e-4, tries=5)
    assert 0.999 * bound.value < found <= bound.value
    np.testing.assert_allclose(bound.value, 2.0 * 0.5 * (1.2**2 + 0.7**2 + 1), rtol=1e-6)


def test_models_that_are_linear_in_what_moves_have_constant_zero():
    problem, network = make_problem(), mean_field()
    for model, trainable in (
        (RandomFeatures.of(network), "all"),
        (Linearised(network), "all"),
        (network, "output"),
        (mean_field(activation="relu"), "output"),
        (mlp(), "output"),
    ):
        system = System(problem, model, trainable)
        bound = consistent_radius(system, system.weights(model), 0.1)
        assert (bound.value, bound.radius, bound.rigorous) == (0.0, math.inf, True)
        assert estimate_jacobian_lipschitz(system, system.weights(model), 1.0).value < 1e-12


def test_relu_has_no_constant():
    for model in (mean_field(activation="relu"), mlp(activation="relu")):
        system = System(make_problem(), model)
        bound = consistent_radius(system, system.weights(model), 0.1)
        assert (bound.value, bound.radius) == (math.inf, 0.0)


def test_the_radius_is_the_largest_consistent_one():
    """And rounded down: 2 K(R) R is at most the singular value, and above it just beyond."""
    for trainable in ("all", "hidden"):
        system, weights = network_system(trainable, {})
        bound = consistent_radius(system, weights, 0.3)
        assert 2 * bound.value * bound.radius <= 0.3
        beyond = 1.000001 * bound.radius
        assert 2 * jacobian_lipschitz(system, weights, beyond).value * beyond > 0.3


def test_an_estimate_is_below_the_bound_and_near_the_truth():
    system, weights = network_system("all", {})
    estimate = estimate_jacobian_lipschitz(system, weights, 1.0)
    assert not estimate.rigorous
    worst = worst_ratio(system, weights, 1.0, tries=30)
    assert 0.5 * worst < estimate.value <= jacobian_lipschitz(system, weights, 1.0).value


@pytest.mark.parametrize("model", [mlp(), equinox_mlp()], ids=["mlp", "equinox"])
def test_other_models_get_an_estimate(model):
    problem = make_problem(num_outputs=2 if isinstance(model, gn.models.MLP) else 1)
    system = System(problem, model)
    bound = consistent_radius(system, system.weights(model), 0.3)
    assert not bound.rigorous
    assert 0 < bound.value < math.inf
    np.testing.assert_allclose(2 * bound.value * bound.radius, 0.3, rtol=1e-12)


def test_frozen_flows_use_the_weights_that_move():
    problem, model = make_problem(), mean_field()
    system = Frozen(GradientFlow(), "hidden").system(problem, model)
    weights = system.weights(model)
    assert jacobian_lipschitz(system, weights, 1.0).value == jacobian_lipschitz(system, weights, 9.0).value
    whole = System(problem, model)
    assert jacobian_lipschitz(system, weights, 1.0).value < jacobian_lipschitz(whole, whole.weights(model), 1.0).value


def test_the_dense_jacobian_of_the_tests_is_that_of_the_model():
    model, problem = mean_field(), make_problem()
    system = System(problem, model)
    weights = system.weights(model)
    found = jacobian_of(system, weights)(ravel_pytree(weights)[0])
    np.testing.assert_allclose(found, jacobian(model, problem.x_train), rtol=1e-12, atol=1e-15)


def test_a_radius_must_not_be_negative():
    system, weights = network_system("all", {})
    with pytest.raises(gn.ConfigError, match="radius = -1"):
        jacobian_lipschitz(system, weights, -1.0)
