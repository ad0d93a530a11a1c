"""What activations and models say of their kinks."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from gnflow import ModelError
from gnflow.models import (
    MLP,
    Activation,
    DerivativeBounds,
    Linearised,
    MeanFieldNetwork,
    RandomFeatures,
    ReversibleMLP,
    activation_names,
    get_activation,
    has_kinks,
    kinked_activations,
)


class Wrapped(eqx.Module):
    """A model of the user's: another one, called."""

    inner: eqx.Module

    def __call__(self, x):
        return self.inner(x)


class Promised(Wrapped):
    activations: tuple = eqx.field(static=True, default=())


@pytest.mark.parametrize("name", activation_names)
def test_the_derivative_jumps_at_the_kinks_and_nowhere_else(name):
    activation = get_activation(name)
    grid = np.linspace(-6, 6, 1201)  # holds the kinks
    h = 1e-7

    def slope(z):
        return np.asarray(activation.value_and_derivative(jnp.asarray(z))[1])

    jumps = grid[np.abs(slope(grid + h) - slope(grid - h)) > 1e-3]
    np.testing.assert_allclose(jumps, activation.kinks, atol=1e-12)


def _models(activation):
    key = jr.key(0)
    two_layers = MeanFieldNetwork(3, 4, activation=activation, key=key)
    deep = MLP(3, 4, 2, activation=activation, key=key)
    return two_layers, deep, ReversibleMLP(4, 5, 3, activation=activation, init_scale=1.0, key=key)


def test_the_kinks_of_a_users_function():
    for smooth in (jnp.sin, lambda z: z**2 * jnp.exp(-z)):
        assert all(has_kinks(model) is False for model in _models(smooth))
    for unknown in (jax.nn.leaky_relu, jnp.abs):
        assert get_activation(unknown).kinks is None
        assert all(has_kinks(model) is None for model in _models(unknown))
        assert kinked_activations(_models(unknown)[0]) == ()
    stated = Activation.from_function(jax.nn.leaky_relu, kinks=(0.0,), homogeneous=True)
    assert all(has_kinks(model) is True for model in _models(stated))
    assert kinked_activations(_models(stated)[1]) == ("leaky_relu",)
    assert has_kinks(MLP(3, 4, 2, activation=Activation.from_function(jnp.abs, kinks=()), key=jr.key(0))) is False


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"kinks": (math.nan,)}, "a kink = nan; expected a finite number"),
        ({"homogeneous": True}, r"homogeneous = True, but sin\(2 z\) is not 2 sin\(z\)"),
        ({"derivative_bounds": DerivativeBounds(math.nan, 1.0)}, r"expected DerivativeBounds\(first, second\)"),
        (
            {"derivative_bounds": DerivativeBounds(0.5, 1.0)},
            "but |sin'| is 0.980067 at z = -0.2; expected an upper bound",
        ),
    ],
)
def test_what_is_stated_of_a_function_and_is_not_so_is_refused(stated, message):
    with pytest.raises(ModelError, match=message.replace("|", r"\|")):
        Activation.from_function(jnp.sin, **stated)


def test_kinks_are_ascending_floats():
    stated = Activation.from_function(
        jax.nn.relu6, kinks=(6.0, np.float64(0.0), 6.0), derivative_bounds=DerivativeBounds(1.0, math.inf)
    )
    assert stated.kinks == (0.0, 6.0)
    hash(stated.kinks)


def test_models_with_and_without_kinks():
    for kinked, smooth in zip(_models("relu"), _models("tanh"), strict=True):
        assert has_kinks(kinked) is True
        assert kinked_activations(kinked) == ("relu",)
        assert has_kinks(smooth) is False
    relu = _models("relu")[0]
    # Linear in what is trained, or with linear blocks alone.
    for model in (RandomFeatures.of(relu), Linearised(relu), ReversibleMLP(4, 5, 1, activation="relu", key=jr.key(0))):
        assert has_kinks(model) is False, model


def test_models_of_the_user():
    relu, tanh = (Wrapped(model) for model in (_models("relu")[1], _models("tanh")[1]))
    x = jnp.ones(3)
    assert has_kinks(relu) is True
    assert has_kinks(tanh) is None  # something else in it may have a kink
    assert has_kinks(tanh, x) is False
    assert has_kinks(Promised(tanh)) is False
    for activation, known in (
        (jnp.tanh, False),
        (jax.nn.silu, False),
        (jnp.sin, False),
        (jax.nn.relu, None),
        (jnp.abs, None),
        (lambda z: jnp.where(z > 0, z, 0.1 * z), None),
        (lambda z: z * jnp.round(z), None),
        (lambda z: jax.lax.cond(z > 0, jnp.sin, jnp.cos, z), None),
    ):
        assert has_kinks(eqx.nn.MLP(3, 1, 4, 2, activation=activation, key=jr.key(0)), x) is known, activation


def test_average_pooling_is_smooth_and_maximum_pooling_may_not_be():
    class Pooled(eqx.Module):
        convolution: eqx.nn.Conv2d
        pooling: eqx.Module

        def __call__(self, x):
            return jnp.sum(self.pooling(jnp.tanh(self.convolution(x.reshape(1, 4, 4)))))

    convolution = eqx.nn.Conv2d(1, 2, 3, padding=1, key=jr.key(0))
    for pooling, known in ((eqx.nn.AvgPool2d(2, 2), False), (eqx.nn.MaxPool2d(2, 2), None)):
        assert has_kinks(Pooled(convolution, pooling), jnp.ones(16)) is known


def test_pre_activations_are_what_the_activations_are_applied_to():
    x = jr.normal(jr.key(1), (4,))
    two_layers, deep, reversible = _models("relu")
    (z,) = two_layers.pre_activations(x[:3])
    np.testing.assert_array_equal(two_layers.activations[0](z), two_layers.hidden_features(x[:3]))
    for activation, z, features in zip(
        deep.activations, deep.pre_activations(x[:3]), deep.layer_features(x[:3]), strict=True
    ):
        np.testing.assert_array_equal(activation(z), features)
    # The blocks one by one; the first is linear.
    features, expected = x, []
    for block in range(3):
        halves = [
            jax.tree.map(
                lambda a, b=block, k=k: a[b, k], (reversible.frozen_weight, reversible.weight, reversible.bias)
            )
            for k in (0, 1)
        ]
        (x1, x2), z = jnp.split(features, 2), []
        for frozen, weight, bias in halves:
            z.append(x2 @ frozen)
            units = z[-1] if block == 0 else jnp.maximum(z[-1], 0)
            x1, x2 = x2, x1 + weight @ units + bias
        features = jnp.concatenate([x1, x2])
        expected += z if block > 0 else []
    (found,) = reversible.pre_activations(x)
    np.testing.assert_allclose(found, jnp.concatenate(expected), rtol=1e-12)
    np.testing.assert_allclose(features, reversible.hidden_features(x), rtol=1e-12)
