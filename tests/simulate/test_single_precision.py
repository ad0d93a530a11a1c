"""Discrete training in float32: what is computed in it, how accurate it is, and what refuses it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gnflow as gn
from gnflow import PrecisionError
from gnflow.flows import DualGaussNewtonFlow, Frozen, GradientFlow
from gnflow.models import SinglePrecision

PROBLEM = gn.problems.teacher_student(n_train=12, n_test=8, input_dim=3, teacher_width=2, key=0)


class Perceptron(eqx.Module):
    """As of another library, with weights in float32."""

    first: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, dtype):
        keys = jax.random.split(jax.random.key(1))
        self.first = eqx.nn.Linear(3, 6, key=keys[0], dtype=dtype)
        self.last = eqx.nn.Linear(6, 1, key=keys[1], dtype=dtype)

    def __call__(self, x):
        assert x.dtype == self.first.weight.dtype  # nothing is promoted on the way
        return self.last(jnp.tanh(self.first(x)))


@functools.cache
def pair(kind):
    """The same steps from a float32 model, and from its weights in float64."""
    flow, options = {
        "gradient": (GradientFlow(1.0), {"step_size": 0.3}),
        "adam": (GradientFlow(1.0), {"optimiser": gn.optimisers.Adam(0.02)}),
        "dual": (DualGaussNewtonFlow(100.0), {"step_size": 1.0, "batch_size": 6, "key": 0}),
        "output": (Frozen(GradientFlow(1.0), "last"), {"step_size": 0.3}),
    }[kind]
    low = Perceptron(jnp.float32)
    whole = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, low)
    runs = [
        gn.iterate(PROBLEM, model, flow, num_steps=20, save_every=5, saveat_weights=[10], **options)
        for model in (low, whole)
    ]
    return low, *runs


@pytest.mark.parametrize("kind", ["gradient", "adam", "dual", "output"])
def test_losses_are_those_of_float64_to_the_digits_of_float32(kind):
    _, single, double = pair(kind)
    for name in ("train_loss", "test_loss"):
        ratio = single.data[name].values / double.data[name].values
        np.testing.assert_allclose(ratio, 1.0, rtol=1e-4)
    assert np.any(single.data.train_loss.values != double.data.train_loss.values)
    assert single.stats["precision"] == "float32"
    assert 0 < single.stats["single_precision_error"] < 1e-5
    assert "precision" not in double.stats


def test_the_model_of_the_run_gives_back_its_float32_model():
    low, single, _ = pair("gradient")
    assert isinstance(single.model, SinglePrecision)
    plain = single.model.in_float32
    assert jax.tree.structure(plain) == jax.tree.structure(low)
    assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(plain, eqx.is_array))} == {jnp.dtype("float32")}
    outputs = jax.vmap(plain)(PROBLEM.x_test.astype(jnp.float32))
    np.testing.assert_allclose(single.predict(PROBLEM.x_test), outputs, rtol=1e-6)
    start = single.initial_model.in_float32
    assert all(bool(jnp.all(a == b)) for a, b in zip(*map(jax.tree.leaves, (start, low)), strict=True))


def test_steps_below_the_digits_of_float32_add_up():
    """Of 200 steps none changes a float32 weight of 1 by itself; together they do."""
    low = Perceptron(jnp.float32)
    ones = eqx.tree_at(lambda m: m.last.bias, low, jnp.ones(1, dtype=jnp.float32))
    run = gn.iterate(PROBLEM, ones, Frozen(GradientFlow(1.0), "last.bias"), step_size=1e-9, num_steps=200)
    moved = float(run.model.model.last.bias[0] - 1)
    slope = float(jax.grad(lambda b: gn.System(PROBLEM, SinglePrecision(ones)).train_loss(
        eqx.tree_at(lambda m: m.model.last.bias, SinglePrecision(ones), b)))(jnp.ones(1))[0])  # fmt: skip
    np.testing.assert_allclose(moved, -200e-9 * slope, rtol=1e-3)
    assert abs(1e-9 * slope) < np.finfo(np.float32).eps / 4


def test_a_saved_run_comes_back(tmp_path):
    low, single, _ = pair("output")
    single.save(tmp_path / "run")
    again = gn.load(tmp_path / "run", model=SinglePrecision(low))
    np.testing.assert_array_equal(again.predict(PROBLEM.x_test), single.predict(PROBLEM.x_test))
    np.testing.assert_array_equal(again.predict(PROBLEM.x_test, time=10), single.predict(PROBLEM.x_test, time=10))
    assert again.stats["precision"] == "float32"


def test_flows_and_certificates_refuse_it():
    low, single, _ = pair("gradient")
    with pytest.raises(PrecisionError, match=r"weights of Perceptron, .*float32, but float64 is needed"):
        gn.simulate(PROBLEM, low, GradientFlow(), t1=1.0)
    for model in (SinglePrecision(low), gn.models.Centred(SinglePrecision(low))):
        with pytest.raises(PrecisionError, match=r"SinglePrecision .* gnflow\.iterate"):
            gn.simulate(PROBLEM, model, GradientFlow(), t1=1.0)
    with pytest.raises(PrecisionError, match="certificates are made in float64"):
        gn.theory.verify(single)
    mixed = eqx.tree_at(lambda m: m.last.bias, low, jnp.zeros(1))
    with pytest.raises(PrecisionError, match="float32, but float64 is needed"):
        gn.iterate(PROBLEM, mixed, GradientFlow(), step_size=0.1, num_steps=1)
