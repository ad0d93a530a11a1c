"""Losses that one function states, against gnflow's own and against what their flows should do."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import gnflow as gn
from gnflow._core import ConfigError, DataError
from gnflow.losses import SquaredLoss, from_function


def half_squares(f, y):
    return jnp.sum((f - y) ** 2, axis=1) / 2


def mean_of_half_squares(f, y):
    return jnp.mean(half_squares(f, y))


@pytest.mark.parametrize("value", [half_squares, mean_of_half_squares])
def test_the_squared_loss_from_a_function(value):
    loss, expected = from_function(value, minimum=0.0), SquaredLoss()
    y, f, v = (jnp.asarray(np.random.default_rng(seed).normal(size=(5, 2))) for seed in range(3))
    np.testing.assert_allclose(loss.value(f, y), expected.value(f, y), rtol=1e-14)
    np.testing.assert_allclose(loss.gradient(f, y), expected.gradient(f, y), rtol=1e-14)
    np.testing.assert_allclose(loss.hessian_product(f, y, v), expected.hessian_product(f, y, v), rtol=1e-14)
    np.testing.assert_allclose(loss.hessian_factor(f, y).whiten(v), expected.hessian_factor(f, y).whiten(v), rtol=1e-12)
    assert float(loss.minimum(y)) == 0.0


def test_a_run_is_that_of_the_same_loss_with_closed_forms():
    x, y = jr.normal(jr.key(0), (6, 2)), jr.normal(jr.key(1), (6,))
    model = gn.models.MeanFieldNetwork(2, 20, key=jr.key(2))
    ends = []
    for loss in (SquaredLoss(), from_function(half_squares, minimum=0.0)):
        run = gn.simulate(gn.Problem(x, y, loss=loss), model, gn.flows.GaussNewtonFlow(), t1=6.0)
        ends.append(float(run.data.train_loss[-1]))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)


def test_the_minimum_may_depend_on_the_targets():
    def poisson(f, y):
        return jnp.sum(jnp.exp(f) - y * f, axis=1)

    loss = from_function(poisson, minimum=lambda y: jnp.mean(jnp.sum(y - jax.scipy.special.xlogy(y, y), axis=1)))
    y = jnp.asarray([[1.0], [4.0], [2.5]])
    np.testing.assert_allclose(loss.minimum(y), loss.value(jnp.log(y), y), rtol=1e-14)
    np.testing.assert_allclose(loss.gradient(jnp.log(y), y), 0.0, atol=1e-15)


@pytest.mark.parametrize(
    ("value", "minimum", "match"),
    [
        (lambda f, y: jnp.sum((f - y) ** 2), 0.0, "a loss is the mean of one value per sample"),
        (lambda f, y: jnp.log1p((f - y) ** 2).mean(), 0.0, "not convex"),
        (lambda f, y: (f - y) ** 2, 0.0, r"shape \(3, 1\); expected a number"),
        (half_squares, 100.0, "the minimum of half_squares is 100"),
    ],
)
def test_a_function_that_is_no_loss_is_refused_by_the_problem(value, minimum, match):
    with pytest.raises(DataError, match=match):
        gn.Problem(jnp.ones((3, 2)), jnp.arange(3.0), loss=from_function(value, minimum=minimum))


def test_what_is_no_function_and_no_number():
    with pytest.raises(ConfigError, match=r"value = 3; expected a JAX function"):
        from_function(3, minimum=0.0)
    for minimum in ("0", None, float("nan")):
        with pytest.raises(ConfigError, match="minimum"):
            from_function(half_squares, minimum=minimum)
    with pytest.raises(DataError, match="half_squares"):
        gn.Problem(jnp.ones((3, 2)), jnp.asarray([0, 1, 2]), loss=from_function(half_squares, minimum=0.0))


def test_it_is_saved_and_loaded_with_its_problem(tmp_path):
    problem = gn.Problem(jr.normal(jr.key(0), (6, 2)), jnp.arange(6.0), loss=from_function(half_squares, minimum=0.0))
    model = gn.models.MeanFieldNetwork(2, 20, key=jr.key(2))
    run = gn.simulate(problem, model, gn.flows.GradientFlow(), t1=0.1)
    run.save(tmp_path / "run")
    with pytest.raises(
        gn.RunFolderError,
        match=r"a problem with function half_squares, .* pass it: gnflow\.load\(folder, problem=problem\)",
    ):
        gn.load(tmp_path / "run")
    np.testing.assert_array_equal(gn.load(tmp_path / "run", problem=problem).data.train_loss, run.data.train_loss)
    doubled = from_function(lambda f, y: 2 * half_squares(f, y), minimum=0.0)
    other = gn.Problem(problem.x_train, problem.y_train, loss=doubled)
    with pytest.raises(gn.RunFolderError, match="the code of the model or of the loss"):
        gn.load(tmp_path / "run", problem=other)
