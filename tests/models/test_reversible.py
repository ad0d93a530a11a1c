import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import gnflow as gn
from gnflow import ModelError
from gnflow.models import ReversibleMLP, trainable_weights

D, H, L, C, N = 6, 5, 3, 2, 4


@functools.cache
def network(**options):
    return ReversibleMLP(D, H, L, C, init_scale=0.5, key=jr.key(0), **options)


def inputs(seed=1):
    return jr.normal(jr.key(seed), (N, D))


def by_hand(model, x):
    """The blocks one by one, in NumPy, with the activation ReLU."""
    half = x.shape[1] // 2
    for block in range(model.num_blocks):
        act = (lambda z: z) if block in model.linear_blocks else (lambda z: np.maximum(z, 0))
        (cf, cg), (wf, wg), (bf, bg) = (
            np.asarray(array[block]) for array in (model.frozen_weight, model.weight, model.bias)
        )
        left = x[:, :half] + act(x[:, half:] @ cf) @ wf.T + bf
        right = x[:, half:] + act(left @ cg) @ wg.T + bg
        x = np.concatenate([left, right], axis=1)
        yield x


@pytest.mark.parametrize("linear", [(0,), (), (1, 2)])
def test_blocks_are_the_formula(linear):
    model = eqx.tree_at(lambda m: m.bias, network(linear_blocks=linear), jr.normal(jr.key(2), (L, 2, D // 2)))
    layers = list(by_hand(model, np.asarray(inputs())))
    for got, expected in zip(jax.vmap(model.layer_features)(inputs()), layers, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(
        jax.vmap(model)(inputs()), layers[-1] @ np.asarray(model.output_projection), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_the_inverse_gives_the_inputs_back(activation):
    model = network(activation=activation)
    out = model.hidden_features(inputs())
    assert float(jnp.max(jnp.abs(out - inputs()))) > 0.1
    np.testing.assert_allclose(model.inverse(out), inputs(), rtol=0, atol=1e-13)


def test_the_start_is_the_one_of_the_paper():
    model = ReversibleMLP(40, 1000, 2, 10, key=jr.key(3))
    np.testing.assert_allclose(model.output_projection.T @ model.output_projection, np.eye(10), atol=1e-14)
    np.testing.assert_allclose(jnp.std(model.frozen_weight), 1000**-0.5, rtol=0.01)
    np.testing.assert_allclose(jnp.std(model.weight), 1e-3, rtol=0.01)
    assert not np.any(model.bias)
    x = jr.normal(jr.key(4), (3, 40))
    np.testing.assert_allclose(model.hidden_features(x), x, atol=0.03)


def test_scales_multiply_the_same_draws():
    one, other = network(), ReversibleMLP(D, H, L, C, init_scale=1.0, frozen_scale=3.0, key=jr.key(0))
    np.testing.assert_allclose(other.weight, 2 * one.weight)
    np.testing.assert_allclose(other.frozen_weight, 3 * one.frozen_weight)
    np.testing.assert_array_equal(other.output_projection, one.output_projection)


def test_only_the_half_blocks_weights_and_biases_are_trained():
    weights, structure = trainable_weights(network())
    assert [leaf.shape for leaf in jax.tree.leaves(weights)] == [(L, 2, D // 2, H), (L, 2, D // 2)]
    assert structure.frozen_weight is not None
    assert structure.output_projection is not None


def test_from_arrays_is_the_same_network():
    model = network()
    again = ReversibleMLP.from_arrays(model.frozen_weight, model.weight, model.bias, model.output_projection)
    assert eqx.tree_equal(model, again)


@pytest.mark.parametrize(("name", "shape"), [("mnist", (2, 2, 392, 8000)), ("cifar10", (6, 2, 1536, 8000))])
def test_presets_have_the_sizes_of_the_paper(name, shape):
    made = eqx.filter_eval_shape(lambda key: ReversibleMLP.from_preset(name, key=key), jr.key(0))
    assert made.weight.shape == shape
    assert made.output_projection.shape == (2 * shape[2], 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 7}, "width = 7 is odd"),
        ({"bottleneck": 0}, "bottleneck = 0"),
        ({"num_blocks": 0}, "num_blocks = 0"),
        ({"output_dim": 7}, "output_dim = 7, but the 6 features"),
        ({"linear_blocks": (3,)}, r"linear_blocks\[0\] = 3; expected an integer of at least 0 and at most 2"),
        ({"init_scale": -1.0}, r"init_scale = -1\.0"),
        ({"activation": "rellu"}, "relu"),
    ],
)
def test_sizes_that_make_no_network(options, message):
    sizes = {"width": D, "bottleneck": H, "num_blocks": L, "output_dim": C}
    with pytest.raises(ModelError, match=message):
        ReversibleMLP(**{**sizes, **options}, key=jr.key(0))


def test_unknown_preset():
    with pytest.raises(ModelError, match="cifar10"):
        ReversibleMLP.from_preset("cifar", key=jr.key(0))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bias", lambda array: array[:2], "the arrays have the shapes"),
        ("output_projection", lambda array: array[:-1], "the arrays have the shapes"),
        ("output_projection", lambda array: array[:, :0], "the arrays have the shapes"),
        ("output_projection", lambda array: 2 * array, "are not orthonormal .* by 3.0e"),
        ("weight", lambda array: array[:, :1], "the arrays have the shapes"),
        ("weight", lambda array: array.at[0, 0, 0, 0].set(jnp.nan), "weight holds NaN"),
    ],
)
def test_arrays_that_make_no_network(name, change, message):
    model = network()
    names = ("frozen_weight", "weight", "bias", "output_projection")
    arrays = {each: getattr(model, each) for each in names}
    with pytest.raises(ModelError, match=message):
        ReversibleMLP.from_arrays(**{**arrays, name: change(arrays[name])})


def test_inputs_of_another_width():
    problem = gn.Problem(np.ones((3, 8)), np.zeros((3, C)))
    with pytest.raises(ModelError, match=r"cannot be called on one training input of shape \(8,\)"):
        gn.System(problem, network())
