"""The backtracking line search: Armijo's condition with the true gradient, along any flow, and where there is no step."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from oracles.cases import Case

import gnflow as gn
from gnflow import ConfigError
from gnflow.flows import DualGaussNewtonFlow, GradientFlow
from gnflow.optimisers import LineSearch, Optax

CASE = Case("mean field silu", "softmax", 3, seed=52)
FRACTION = 0.3


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


@functools.cache
def searched(name, steps=5):
    """(loss before, after, slope of the step, loss at the trial before, h) of each step along a flow."""
    flow, search = {
        # A long way beyond where the loss falls, so that the search has to go back.
        "gradient": (GradientFlow(1.0), LineSearch(300.0, FRACTION, 0.6)),
        "dual": (DualGaussNewtonFlow(1e4, max_iterations=4), LineSearch(8.0, FRACTION, 0.6)),
    }[name]
    system = gn.System(CASE.problem, CASE.model)
    weights = system.weights(CASE.model)
    memory = search.init(weights)

    @jax.jit
    def step(weights, memory):
        velocity = flow.velocity(0.0, weights, system)
        step, memory = search.update(jax.tree.map(jnp.negative, velocity), memory, weights, system)
        gradient = ravel_pytree(jax.grad(system.train_loss)(weights))[0]
        length = ravel_pytree(step)[0] @ ravel_pytree(velocity)[0] / jnp.sum(ravel_pytree(velocity)[0] ** 2)
        after, further = (
            jax.tree.map(lambda w, s, factor=factor: w + factor * s, weights, step) for factor in (1.0, 1 / 0.6)
        )
        losses = [system.train_loss(at) for at in (weights, after, further)]
        slope = ravel_pytree(step)[0] @ gradient
        return after, memory, (losses[0], losses[1], slope, losses[2], length)

    rows = []
    for _ in range(steps):
        weights, memory, row = step(weights, memory)
        rows.append([float(number) for number in row])
    return np.array(rows), flat(weights), flow, search


@pytest.mark.parametrize("name", ["gradient", "dual"])
def test_each_step_is_the_first_with_armijos_condition(name):
    """With the slope of the true gradient: along the dual direction that is not minus its square."""
    rows, _, _, search = searched(name)
    before, after, slope, further, lengths = rows.T
    assert np.all(slope < 0)
    assert np.all(after <= before + FRACTION * slope + 1e-15)
    stepped_back = lengths < 0.99 * search.learning_rate
    assert stepped_back.any()
    assert np.all((further > before + FRACTION * slope / 0.6)[stepped_back])
    trials = np.log(lengths / search.learning_rate) / np.log(0.6)
    np.testing.assert_allclose(trials, np.round(trials), atol=1e-6)


class Saturating(eqx.Module):
    """f(x) = tanh(w) x, or w x."""

    w: jax.Array
    bounded: bool = eqx.field(static=True)

    def __call__(self, x):
        return (jnp.tanh(self.w) if self.bounded else self.w) * x


def test_batches_search_on_their_own_loss():
    """One sample a batch: each step goes to that sample's target, where the mean of both losses is no lower."""
    problem = gn.Problem(np.ones((2, 1)), np.array([3.0, -1.0]))
    model = Saturating(jnp.zeros(()), bounded=False)
    run = gn.iterate(problem, model, GradientFlow(1.0), optimiser=LineSearch(), num_epochs=2, batch_size=1, key=0)
    np.testing.assert_allclose(run.data.batch_loss_after, 0.0, atol=1e-25)
    assert abs(float(run.model.w)) in (3.0, 1.0)


def test_no_step_uphill_even_where_the_loss_is_bounded():
    """Far enough, the loss lies below any line that rises."""
    system = gn.System(gn.Problem(np.ones((1, 1)), np.array([2.0])), Saturating(jnp.asarray(0.5), bounded=True))
    weights = system.weights(Saturating(jnp.asarray(0.5), bounded=True))
    gradient = jax.grad(system.train_loss)(weights)
    search = LineSearch(1e6)
    uphill, state = search.update(jax.tree.map(jnp.negative, gradient), search.init(weights), weights, system)
    assert float(state.info.decrease_error) <= 0  # Armijo's inequality holds
    assert np.all(flat(uphill) == 0)


def test_no_step_where_none_lowers_the_loss():
    system = gn.System(CASE.problem, CASE.model)
    weights = system.weights(CASE.model)
    gradient = jax.grad(system.train_loss)(weights)
    search = LineSearch(1.0, max_trials=4)
    memory = search.init(weights)

    def step(handed, memory):
        return search.update(handed, memory, weights, system)

    uphill, memory = step(jax.tree.map(jnp.negative, gradient), memory)
    assert np.all(flat(uphill) == 0)
    # So far that the loss is no number at any trial; the next search is none the worse for it.
    far, memory = step(jax.tree.map(lambda leaf: 1e300 * leaf, gradient), memory)
    assert np.all(flat(far) == 0)
    # One trial, and it would go too far.
    too_far = LineSearch(1e3, 0.9, max_trials=1)
    assert np.all(flat(too_far.update(gradient, memory, weights, system)[0]) == 0)
    np.testing.assert_allclose(flat(step(gradient, memory)[0]), -flat(gradient), rtol=1e-12)


def test_transformations_that_ask_for_the_loss_get_the_true_one():
    """Polyak's step length by its formula, and Optax's own line search along twice the gradient."""
    system = gn.System(CASE.problem, CASE.model)
    weights = system.weights(CASE.model)
    loss, gradient = jax.value_and_grad(system.train_loss)(weights)
    handed = jax.tree.map(lambda leaf: 2 * leaf, gradient)

    def step(transformation):
        optimiser = Optax(transformation)
        return flat(optimiser.update(handed, optimiser.init(weights), weights, system)[0])

    # loss/||u||^2 u for u = 2 grad L.
    polyak = float(loss) / (2 * np.sum(flat(gradient) ** 2)) * flat(gradient)
    np.testing.assert_allclose(step(optax.scale_by_polyak(max_learning_rate=np.inf)), polyak, rtol=1e-10)
    options = {"slope_rtol": 0.95, "decrease_factor": 0.6, "increase_factor": np.inf, "max_learning_rate": 8.0}
    backtracking = optax.scale_by_backtracking_linesearch(29, **options)
    search = LineSearch(8.0, 0.95, 0.6)
    expected = flat(search.update(handed, search.init(weights), weights, system)[0])
    assert 0 < np.linalg.norm(expected) < 15 * np.linalg.norm(flat(gradient))
    np.testing.assert_allclose(step(optax.chain(optax.sgd(1.0), backtracking)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learning_rate": 0.0}, r"LineSearch: learning_rate = 0\.0; expected a finite number above 0"),
        ({"slope_fraction": 1.0}, r"slope_fraction = 1\.0; expected a number above 0 and below 1"),
        ({"slope_fraction": 0.0}, r"slope_fraction = 0\.0"),
        ({"shrinkage": 1.5}, r"shrinkage = 1\.5"),
        ({"max_trials": 0}, "max_trials = 0; expected an integer"),
    ],
)
def test_bad_numbers_are_named(options, match):
    with pytest.raises(ConfigError, match=match):
        LineSearch(**options)


def test_without_samples_there_is_nothing_to_search():
    search, weights = LineSearch(), {"w": jnp.ones(2)}
    with pytest.raises(ConfigError, match="LineSearch looks at the loss; give"):
        search.update(weights, search.init(weights), weights)
