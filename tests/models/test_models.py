"""The models' outputs against NumPy, their starts, and what their constructors refuse."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special
import scipy.stats
from oracles import dense
from oracles.cases import CASES, INPUT_DIM, displaced, random_like

from gnflow._core import ModelError, PrecisionError
from gnflow.geometry import System
from gnflow.models import (
    MLP,
    Activation,
    Linearised,
    MeanFieldNetwork,
    RandomFeatures,
    ReversibleMLP,
    activation_names,
    get_activation,
    model_kinds,
    trainable_mask,
    trainable_weights,
)
from gnflow.problems import Problem, teacher_student

ACTIVATIONS = {
    "silu": lambda z: z * scipy.special.expit(z),
    "relu": lambda z: np.maximum(z, 0.0),
    "tanh": np.tanh,
    "erf": scipy.special.erf,
    "gelu": lambda z: z * scipy.special.ndtr(z),
    "softplus": lambda z: np.logaddexp(z, 0.0),
    "sigmoid": scipy.special.expit,
    "identity": lambda z: z,
}
X = np.random.default_rng(0).normal(size=(6, INPUT_DIM))
close = functools.partial(np.testing.assert_allclose, rtol=1e-13, atol=1e-15)


def outputs(model):
    return np.asarray(jax.vmap(model)(jnp.asarray(X)))


def forward(model: MLP):
    """(last hidden layer, outputs) of an MLP, layer by layer."""
    h, width = X, model.layers[0].weight.shape[0]
    for index, layer in enumerate(model.layers):
        last = index == len(model.layers) - 1
        scale = 1 / width if last and model.parametrisation == "mean_field" else 1 / math.sqrt(h.shape[1])
        shift = 0.0 if layer.bias is None else np.asarray(layer.bias)
        if last and model.parametrisation == "mean_field":
            shift = shift / math.sqrt(width)
        z = scale * h @ np.asarray(layer.weight).T + shift
        if last:
            return h, z
        h = ACTIVATIONS[model.activation.name](z)
    raise AssertionError


# --- activations


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_derivatives(name):
    activation = get_activation(name)
    z = jnp.asarray([-800.0, -40.0, -3.0, -0.5, 0.1, 1.0, 5.0, 40.0, 800.0])
    value, derivative = activation.value_and_derivative(z)
    close(value, ACTIVATIONS[name](np.asarray(z)), rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(activation(z), value)
    automatic = jax.vmap(jax.grad(activation))(z)
    close(derivative, automatic, rtol=1e-12, atol=1e-15)
    assert bool(jnp.all(jnp.isfinite(derivative)))


def test_homogeneous_activations_are_those_with_a_straight_ray():
    z = jnp.asarray([-2.0, 0.7, 1.3])
    homogeneous = {
        name for name in activation_names if np.allclose(get_activation(name)(3 * z), 3 * get_activation(name)(z))
    }
    assert (
        homogeneous == {name for name in activation_names if get_activation(name).homogeneous} == {"relu", "identity"}
    )
    assert set(activation_names) == set(ACTIVATIONS)


def test_activations_by_name_and_as_objects():
    silu = get_activation("silu")
    assert get_activation(silu) is silu
    assert silu == Activation(name="silu", homogeneous=False)
    assert float(get_activation("relu").value_and_derivative(jnp.zeros(()))[1]) == 0.0
    for name in ("sliu", "swish", None, 3):
        with pytest.raises(ModelError, match=f"unknown activation {name!r}.*Known names: .*silu"):
            get_activation(name)


def test_any_elementwise_function_is_an_activation():
    z = jnp.linspace(-3, 3, 13)
    sine = get_activation(jnp.sin)
    value, derivative = sine.value_and_derivative(z)
    np.testing.assert_allclose(value, np.sin(z), rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(derivative, np.cos(z), rtol=1e-15, atol=1e-15)
    assert sine == get_activation(jnp.sin)
    assert (sine.name, sine.homogeneous, sine.derivative_bounds, sine.is_transcendental) == ("sin", False, None, False)
    # The same function by hand: models, with what has a closed form of their tangent, take it.
    for make in (
        lambda s: MeanFieldNetwork(2, 5, activation=s, output_init_scale=1.0, key=jr.key(0)),
        lambda s: MLP(2, 5, 2, activation=s, key=jr.key(0)),
    ):
        problem = Problem(jnp.arange(6.0).reshape(3, 2) / 3, jnp.ones(3))
        systems = [(System(problem, make(s)), make(s)) for s in ("tanh", jnp.tanh)]
        named, given = (system.tangent(system.weights(model)) for system, model in systems)
        np.testing.assert_allclose(given.outputs, named.outputs, rtol=1e-12)
        np.testing.assert_allclose(given.gram(), named.gram(), rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (jax.nn.softmax, "softmax cannot be evaluated by JAX on an array and on a number"),
        (np.tanh, "tanh cannot be evaluated by JAX"),
        (jnp.sum, r"numbers of shape \(4,\) into float64 of shape \(\)"),
        (lambda z: z.astype(jnp.float32), "into float32"),
        (lambda z: z - jnp.mean(z), "other values on an array than on each of its numbers"),
        (eqx.nn.PReLU(), "PReLU has arrays of its own"),
    ],
)
def test_what_is_no_elementwise_function_is_refused(function, match):
    with pytest.raises(ModelError, match=match):
        MLP(2, 3, 1, activation=function, key=jr.key(0))


# --- outputs


@pytest.mark.parametrize(
    "case", [c for c in CASES if isinstance(c.model, MeanFieldNetwork) and c.trainable == "all"], ids=str
)
def test_outputs_of_the_mean_field_network(case):
    model = case.model
    arrays = (model.hidden_weight, model.hidden_bias, model.output_weight)
    s = ACTIVATIONS[model.activation.name]
    expected = dense.two_layer_outputs(*arrays, s, model.output_scale, model.output_exponent, X)
    close(outputs(model), expected)
    features = s(X @ np.asarray(arrays[0]).T + (0.0 if arrays[1] is None else np.asarray(arrays[1])))
    close(jax.vmap(model.hidden_features)(jnp.asarray(X)), features)


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(c.model, MLP) and c.trainable == "all"], ids=str)
def test_outputs_of_the_mlp(case):
    features, expected = forward(case.model)
    scale = 3.0 if "output scale 3" in case.kind else 1.0
    close(outputs(case.model), scale * expected)
    close(jax.vmap(case.model.hidden_features)(jnp.asarray(X)), features)


def test_random_features_compute_what_their_network_does():
    network = MeanFieldNetwork(INPUT_DIM, 5, 3, "tanh", output_init_scale=1.0, output_scale=2.0, key=jr.key(0))
    model = RandomFeatures.of(network)
    close(outputs(model), outputs(network))
    drawn = RandomFeatures(INPUT_DIM, 5, 3, "tanh", output_init_scale=1.0, output_scale=2.0, key=jr.key(0))
    close(outputs(drawn), outputs(network))
    assert (model.width, model.mobility) == (network.width, network.mobility)
    moved = RandomFeatures.of(
        network.__class__.from_arrays(
            network.hidden_weight, network.hidden_bias, 2 * network.output_weight, "tanh", 2.0
        )
    )
    close(outputs(moved), 2 * outputs(network))
    weights, _ = trainable_weights(model)
    assert [leaf.shape for leaf in jax.tree.leaves(weights)] == [(5, 3)]
    close(jax.vmap(model.hidden_features)(jnp.asarray(X)), jax.vmap(network.hidden_features)(jnp.asarray(X)))


@pytest.mark.parametrize("kind", ["mean field silu", "mlp depth 2, mean field", "equinox mlp"])
def test_a_linearised_model_is_the_first_order_expansion(kind):
    case = next(case for case in CASES if case.kind == kind and case.num_outputs == 3)
    base = case.model
    model = Linearised(base)
    close(jax.vmap(model)(jnp.asarray(X)), outputs(base))  # at the point of expansion they agree
    displacement = random_like(trainable_weights(base)[0], seed=5)
    moved = jax.tree.map(lambda a, b: a + b, model.weights, displacement)
    moved = Linearised.__new__(Linearised), moved
    for name, value in (("weights", moved[1]), ("base", base)):
        object.__setattr__(moved[0], name, value)
    change = dense.dense_case(case).test_jacobian @ dense.flat(case.leaves(displacement))
    expected = dense.dense_case(case).test_outputs + change.reshape(-1, 3)
    got = jax.vmap(moved[0])(case.problem.x_test)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
    close(dense.flat(case.leaves(moved[0].displacement)), dense.flat(case.leaves(displacement)), rtol=1e-9)
    np.testing.assert_array_equal(
        dense.flat(jax.tree.leaves(trainable_weights(model)[0])), dense.flat(case.leaves(base))
    )


# --- starts


def test_the_mean_field_start_is_that_of_arbel_et_al():
    model = MeanFieldNetwork(10, 4000, init_scale=0.5, key=jr.key(1))
    np.testing.assert_array_equal(model.output_weight, np.zeros((4000, 1)))
    for array in (model.hidden_weight, model.hidden_bias):
        numbers = np.asarray(array).reshape(-1)
        assert abs(numbers.mean()) < 4 * 0.5 / math.sqrt(numbers.size)
        assert abs(numbers.std() / 0.5 - 1) < 4 / math.sqrt(2 * numbers.size)
        assert scipy.stats.kstest(numbers / 0.5, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(model.hidden_weight[:, 0], model.hidden_bias)[0, 1]) < 4 / math.sqrt(4000)
    output = MeanFieldNetwork(1, 4000, output_init_scale=2.0, key=jr.key(1)).output_weight
    assert abs(np.std(output) / 2 - 1) < 4 / math.sqrt(2 * 4000)


def test_the_mlp_start():
    model = MLP(10, 200, 2, 3, init_scale=1.5, key=jr.key(1))
    for layer, shape in zip(model.layers, [(200, 10), (200, 200), (3, 200)], strict=True):
        assert layer.weight.shape == shape
        assert abs(np.std(layer.weight) / 1.5 - 1) < 4 / math.sqrt(2 * layer.weight.size)
        np.testing.assert_array_equal(layer.bias, np.zeros(shape[0]))
    assert all(layer.bias is None for layer in MLP(2, 3, 1, bias=False, key=jr.key(0)).layers)


@pytest.mark.parametrize("parametrisation", ["ntk", "mean_field"])
def test_scales_of_an_mlps_outputs_change_nothing_else(parametrisation):
    def network(**options):
        model = MLP(2, 4, 2, 3, "tanh", parametrisation, init_scale=3.0, key=jr.key(1), **options)
        return eqx.tree_at(lambda m: m.layers[-1].bias, model, jnp.ones(3))

    x, plain = jnp.asarray([0.3, -1.0]), network()
    np.testing.assert_allclose(network(output_scale=0.25)(x), plain(x) / 4, rtol=1e-14)
    assert network(output_scale=0.25).mobility == plain.mobility
    small = network(output_init_scale=0.5)
    np.testing.assert_allclose(small.layers[-1].weight, plain.layers[-1].weight / 6, rtol=1e-14)
    assert eqx.tree_equal(small.layers[:-1], plain.layers[:-1])
    assert eqx.tree_equal(network(output_init_scale=3.0), plain)
    bias = 1.0 if parametrisation == "ntk" else 0.5
    np.testing.assert_array_equal(network(output_init_scale=0.0)(x), jnp.full(3, bias))


def test_mobilities():
    def network(exponent):
        return MeanFieldNetwork(2, 9, output_exponent=exponent, key=jr.key(0))

    assert [network(s).mobility for s in (1.0, 0.5, 0.75)] == [9.0, 1.0, 3.0]
    assert MLP(2, 9, 1, parametrisation="mean_field", key=jr.key(0)).mobility == 9.0
    assert MLP(2, 9, 1, parametrisation="ntk", key=jr.key(0)).mobility == 1.0
    assert Linearised(network(1.0)).mobility == 9.0


def test_each_part_has_its_own_stream():
    def network(width=4, outputs=1, bias=True, **kwargs):
        return MeanFieldNetwork(3, width, outputs, bias=bias, output_init_scale=1.0, key=jr.key(7), **kwargs)

    np.testing.assert_array_equal(network(bias=False).hidden_weight, network(outputs=2).hidden_weight)
    np.testing.assert_array_equal(network(outputs=2).hidden_bias, network().hidden_bias)
    np.testing.assert_array_equal(network(bias=False).output_weight, network().output_weight)
    shallow, deep = (MLP(3, 4, depth, key=jr.key(7)) for depth in (1, 2))
    np.testing.assert_array_equal(shallow.layers[0].weight, deep.layers[0].weight)


def test_widening_the_network_does_not_change_the_data():
    key = jr.key(7)
    problems = []
    for width in (3, 50):
        MeanFieldNetwork(2, width, key=key)
        problems.append(teacher_student(n_train=4, n_test=2, input_dim=2, key=key))
    np.testing.assert_array_equal(problems[0].x_train, problems[1].x_train)
    np.testing.assert_array_equal(problems[0].y_train, problems[1].y_train)
    # The same seed for data and model does not make them the same numbers.
    model = MeanFieldNetwork(2, 5, key=key)
    assert not np.any(np.isin(model.hidden_weight, np.asarray(problems[0].teacher.hidden_weight)))
    assert not np.any(np.isin(model.hidden_weight, np.asarray(problems[0].x_train)))


def test_blocks_of_a_key_are_together_a_wider_network():
    def network(width, block=0):
        return MeanFieldNetwork(3, width, 2, output_init_scale=1.0, block=block, key=jr.key(7))

    for name in ("hidden_weight", "hidden_bias", "output_weight"):
        parts = [getattr(network(4, block), name) for block in range(3)]
        np.testing.assert_array_equal(np.concatenate(parts), getattr(network(12), name))


# --- from arrays, bad input


def test_from_arrays():
    u, b, v = np.ones((3, 2)), np.arange(3), np.asarray([1.0, 2.0, 3.0])
    model = MeanFieldNetwork.from_arrays(u, b, v, "relu")
    assert model.output_weight.shape == (3, 1)
    assert model.hidden_bias.dtype == jnp.float64
    expected = dense.two_layer_outputs(u, b, v[:, None], ACTIVATIONS["relu"], 1.0, 1.0, X)
    close(outputs(model), expected)
    halved = MeanFieldNetwork.from_arrays(u, None, v, "relu", output_scale=2.0, output_exponent=0.5)
    assert halved.hidden_bias is None
    close(outputs(halved), dense.two_layer_outputs(u, None, v[:, None], ACTIVATIONS["relu"], 2.0, 0.5, X))
    drawn = MeanFieldNetwork(2, 3, output_init_scale=1.0, key=jr.key(0))
    again = MeanFieldNetwork.from_arrays(drawn.hidden_weight, drawn.hidden_bias, drawn.output_weight)
    assert jax.tree.structure(again) == jax.tree.structure(drawn)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.ones((3, 2)), np.ones(3), np.ones((4, 1))), r"\(3, 2\) and output_weight \(4, 1\)"),
        ((np.ones(3), np.ones(3), np.ones(3)), r"expected \(M, d\) and \(M, C\)"),
        ((np.ones((3, 2)), np.ones(2), np.ones(3)), r"hidden_bias has shape \(2,\); expected \(3,\)"),
        ((np.ones((3, 2)), np.ones((3, 1)), np.ones(3)), r"hidden_bias has shape \(3, 1\)"),
        ((np.ones((3, 2)), np.ones(3), np.ones((3, 1, 1))), r"output_weight \(3, 1, 1\)"),
        ((np.full((3, 2), np.nan), np.ones(3), np.ones(3)), "hidden_weight holds NaN"),
        ((np.ones((3, 2)), np.full(3, np.inf), np.ones(3)), "hidden_bias holds NaN or infinite"),
        ((np.ones((3, 2)), None, np.asarray([1.0, np.nan, 1.0])), "output_weight holds NaN"),
        ((np.ones((0, 2)), None, np.ones((0, 1))), "at least one particle"),
        ((np.ones((3, 0)), None, np.ones(3)), "at least one particle"),
    ],
)
def test_arrays_that_are_no_network(arrays, message):
    with pytest.raises(ModelError, match=message):
        MeanFieldNetwork.from_arrays(*arrays)


def test_an_unknown_activation_of_given_arrays():
    with pytest.raises(ModelError, match="unknown activation 'rellu'; did you mean 'relu'"):
        MeanFieldNetwork.from_arrays(np.ones((3, 2)), None, np.ones(3), "rellu")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanFieldNetwork(0, 3, key=jr.key(0)), "input_dim = 0"),
        (lambda: MeanFieldNetwork(2, -3, key=jr.key(0)), "width = -3"),
        (lambda: MeanFieldNetwork(2, 3, 0, key=jr.key(0)), "output_dim = 0"),
        (lambda: MeanFieldNetwork(2, 3, block=-1, key=jr.key(0)), "block = -1"),
        (lambda: MeanFieldNetwork(2, 3, init_scale=-1.0, key=jr.key(0)), "init_scale = -1.0"),
        (lambda: MeanFieldNetwork(2, 3, output_init_scale=math.inf, key=jr.key(0)), "output_init_scale = inf"),
        (
            lambda: MeanFieldNetwork(2, 3, output_scale=0.0, key=jr.key(0)),
            "output_scale = 0.0; expected a finite number",
        ),
        (lambda: MeanFieldNetwork(2, 3, output_scale=math.nan, key=jr.key(0)), "output_scale = nan"),
        (lambda: MeanFieldNetwork(2, 3, activation="sliu", key=jr.key(0)), "did you mean 'silu'"),
        (lambda: RandomFeatures(2, 0, key=jr.key(0)), "width = 0"),
        (lambda: MLP(2, 3, 0, key=jr.key(0)), "depth = 0"),
        (lambda: MLP(2, 3, 1, init_scale=math.nan, key=jr.key(0)), "init_scale = nan"),
        (lambda: MLP(2, 3, 1, output_scale=0.0, key=jr.key(0)), "output_scale = 0.0"),
        (lambda: MLP(2, 3, 1, output_init_scale=-1.0, key=jr.key(0)), "output_init_scale = -1.0"),
        (lambda: MLP(2, 3, 1, activation="gellu", key=jr.key(0)), "did you mean 'gelu'"),
        (lambda: Linearised(get_activation("silu")), "Activation has no trainable weights"),
        (lambda: trainable_weights({"a": np.arange(3)}), "is a dict, not an equinox.Module"),
    ],
)
def test_sizes_and_names_that_make_no_model(make, message):
    with pytest.raises(ModelError, match=message):
        make()


@pytest.mark.parametrize("parametrisation", ["NTK", "meanfield"])
def test_an_unknown_parametrisation(parametrisation, monkeypatch):
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    with pytest.raises(ModelError, match=r"unknown parametrisation .*Known names: mean_field, ntk"):
        MLP(2, 3, 1, parametrisation=parametrisation, key=jr.key(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda key: MeanFieldNetwork(2, 3, key=key),
        lambda key: MLP(2, 3, 1, key=key),
        lambda key: RandomFeatures(2, 3, key=key),
        lambda key: MeanFieldNetwork.from_arrays(np.ones((3, 2)), None, np.ones(3)),
    ],
)
def test_no_model_without_double_precision(make):
    key = jr.key(0)
    try:
        jax.config.update("jax_enable_x64", False)
        with pytest.raises(PrecisionError, match="jax_enable_x64"):
            make(key)
    finally:
        jax.config.update("jax_enable_x64", True)


def test_the_trainable_mask_is_the_models_own_or_all_floating_arrays():
    network = MeanFieldNetwork(2, 3, bias=False, key=jr.key(0))
    mask = trainable_mask(network)
    assert (mask.hidden_weight, mask.hidden_bias, mask.output_weight) == (True, None, True)
    linearised = trainable_mask(Linearised(displaced(network, seed=1)))
    assert jax.tree.leaves(linearised.weights) == [True, True]
    assert jax.tree.leaves(linearised.base) == [False, False]
    features = trainable_mask(RandomFeatures.of(network))
    assert features.output_weight is True
    assert jax.tree.leaves(features.features) == [False, False]


def test_the_names_of_the_kinds():
    assert model_kinds == {
        "mean_field": MeanFieldNetwork,
        "mlp": MLP,
        "random_features": RandomFeatures,
        "reversible": ReversibleMLP,
    }
