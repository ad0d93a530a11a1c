"""What the step-size control measures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import jacobian, make_problem, mean_field
from jax.flatten_util import ravel_pytree

import gnflow as gn
from gnflow.geometry import System
from gnflow.simulate import error_norm_kinds
from gnflow.simulate._controller import Change, Tolerances

RTOL = 1e-3
TOLERATED = Tolerances(RTOL, 1e-13, 1e-13)
function, in_weights = (error_norm_kinds[name]() for name in ("function", "weights"))


def change_of(system, before, after, error):
    """A step as the controller judges it."""
    losses = (system.train_loss(before), system.train_loss(after))
    return Change(before, after, error, system.tangent(after), *losses)


def ntk_network(copies):
    """A network with the 1/sqrt(M) scaling and `copies` of each particle, scaled to be the same function of x."""
    base = mean_field()
    repeat = [jnp.concatenate([part] * copies) for part in (base.hidden_weight, base.hidden_bias, base.output_weight)]
    return gn.models.MeanFieldNetwork.from_arrays(
        repeat[0], repeat[1], repeat[2] / np.sqrt(copies), output_exponent=0.5
    )


def most_visible_change(problem):
    """The change of the outputs, of norm 1e-4, that takes the least change of the weights."""
    jac = jacobian(ntk_network(1), problem.x_train)
    return 1e-4 * np.linalg.eigh(jac @ jac.T)[1][:, -1]


def errors_of(system, model, change):
    """Both scaled errors of the smallest change of the weights that changes the outputs by `change` (NC,)."""
    weights = system.weights(model)
    jac = jacobian(model, system.problem.x_train)
    flat = jnp.asarray(np.linalg.lstsq(jac, change)[0])
    _, unravel = ravel_pytree(weights)
    step = change_of(system, weights, weights, unravel(flat))
    return [float(norm.scaled_error(step, system, TOLERATED)) for norm in (function, in_weights)]


def test_the_function_norm_is_the_relative_error_of_the_residual():
    problem, model = make_problem(), ntk_network(1)
    system = System(problem, model)
    change = most_visible_change(problem)
    residual = system.outputs(system.weights(model)) - problem.y_train
    found, in_weights = errors_of(system, model, change)
    np.testing.assert_allclose(found, 1e-4 / np.linalg.norm(residual) / RTOL, rtol=1e-9)
    assert found > in_weights


@pytest.mark.slow
def test_a_step_that_overshoots_is_not_judged_by_its_own_mistake():
    """The residual is that of the better end of the step."""
    problem, model = make_problem(), ntk_network(1)
    system = System(problem, model)
    weights = system.weights(model)
    worse = jax.tree.map(lambda leaf: 3 * leaf, weights)
    error = jax.tree.map(lambda leaf: 1e-4 * leaf, weights)
    low, high = (jnp.sqrt(2 * system.train_loss(end)) for end in (weights, worse))
    assert high > 2 * low
    for before, after in ((weights, worse), (worse, weights)):
        step = change_of(system, before, after, error)
        outputs, targets = step.tangent.outputs, problem.y_train
        pushed = step.tangent.jvp(error)
        curvature = jnp.linalg.norm(pushed) / 2 / low  # rms over N = 4 samples
        slope = jnp.sum(jnp.abs((outputs - targets) * pushed)) / 4 / low**2
        found = function.scaled_error(step, system, TOLERATED)
        np.testing.assert_allclose(found, jnp.maximum(curvature, slope) / RTOL, rtol=1e-9)


@pytest.mark.slow
def test_the_function_norm_does_not_depend_on_the_width():
    """The same change of the outputs is a smaller and smaller change of more and more weights."""
    problem = make_problem()
    change = most_visible_change(problem)
    pairs = [errors_of(System(problem, model), model, change) for model in map(ntk_network, (1, 8))]
    np.testing.assert_allclose([pair[0] for pair in pairs], pairs[0][0], rtol=1e-9)
    assert pairs[1][1] < 0.7 * pairs[0][1]


def test_directions_that_the_outputs_do_not_see_are_bounded_too():
    problem, model = make_problem(), ntk_network(1)
    system = System(problem, model)
    weights = system.weights(model)
    flat, unravel = ravel_pytree(weights)
    unseen = np.linalg.svd(jacobian(model, problem.x_train))[2][-1]
    step = change_of(system, weights, weights, unravel(jnp.asarray(unseen)))
    found = float(function.scaled_error(step, system, TOLERATED))
    np.testing.assert_allclose(found, 1 / (RTOL * np.linalg.norm(flat)), rtol=1e-6)


def test_the_weights_norm_is_relative_to_the_larger_of_both_ends():
    system = System(make_problem(), ntk_network(1))
    weights = system.weights(ntk_network(1))
    double = jax.tree.map(lambda leaf: 2 * leaf, weights)
    for pair in ((weights, double), (double, weights)):
        found = in_weights.scaled_error(change_of(system, *pair, weights), system, Tolerances(RTOL, 1e-30, 1e-30))
        np.testing.assert_allclose(found, 1 / (2 * RTOL), rtol=1e-12)


@pytest.mark.parametrize(
    "loss", [pytest.param(gn.losses.SoftmaxCrossEntropy(), marks=pytest.mark.slow), gn.losses.HuberLoss(0.1)]
)
def test_for_any_loss_it_bounds_what_the_error_does_to_the_loss(loss):
    """With e = rtol times the scaled error, |change of L| <= (2 e + e^2) (L - L*), to second order."""
    problem, model = make_problem(loss=loss), ntk_network(1)
    system = System(problem, model)
    weights = system.weights(model)
    excess = system.train_loss(weights) - loss.minimum(problem.y_train)
    for seed in range(5):
        _, unravel = ravel_pytree(weights)
        error = unravel(1e-3 * jax.random.normal(jax.random.key(seed), (40,)))
        scaled = function.scaled_error(change_of(system, weights, weights, error), system, TOLERATED)
        moved = system.train_loss(jax.tree.map(jnp.add, weights, error)) - system.train_loss(weights)
        relative = float(scaled * RTOL)
        assert abs(float(moved / excess)) < 1.1 * (2 * relative + relative**2)


@pytest.mark.parametrize(("scale", "expected"), [(1e-9, 1e-22), (2.0, 1e-13), (0.0, 1e-13)])
def test_rounding_of_weights_that_start_small_is_smaller(scale, expected):
    tolerated = Tolerances.at(1e-3, 1e-13, {"a": jnp.full(3, scale), "b": jnp.full((2, 2), -scale)})
    np.testing.assert_allclose(tolerated.weights, expected)
    assert tolerated.residual == 1e-13
