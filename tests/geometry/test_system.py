"""Joining a problem with a model: what moves, and what is refused with which words."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest
from oracles import dense
from oracles.cases import INPUT_DIM, make_problem

from gnflow._core import ModelError, PrecisionError
from gnflow.geometry import System
from gnflow.losses import SoftmaxCrossEntropy, SquaredLoss
from gnflow.models import MLP, Linearised, MeanFieldNetwork, RandomFeatures
from gnflow.problems import Problem

PROBLEM = make_problem(SquaredLoss(), 1, seed=1)
NETWORK = MeanFieldNetwork(INPUT_DIM, 3, key=jr.key(0))


class Affine(eqx.Module):
    """A module of a user's: one weight that is trained, others that are no floating-point arrays."""

    slope: jax.Array
    powers: jax.Array
    offset: float

    def __call__(self, x):
        return jnp.sum(self.slope * x**self.powers) + self.offset


def affine(dtype=jnp.float64):
    return Affine(jnp.asarray([1.0, 2.0], dtype=dtype), jnp.asarray([1, 2]), 0.5)


def test_only_floating_arrays_of_a_users_module_are_weights():
    system = System(PROBLEM, affine())
    weights = system.weights(affine())
    assert [leaf.shape for leaf in jax.tree.leaves(weights)] == [(2,)]
    x = np.asarray(PROBLEM.x_train)
    expected = x[:, :1] + 2 * x[:, 1:] ** 2 + 0.5
    np.testing.assert_allclose(system.outputs(weights), expected, rtol=1e-14)
    jacobian = np.concatenate([x[:, :1], x[:, 1:] ** 2], axis=1)
    np.testing.assert_allclose(system.tangent(weights).gram(), jacobian @ jacobian.T, rtol=1e-13)
    assert system.mobility == 1.0


def test_mobility_is_the_models():
    assert System(PROBLEM, NETWORK).mobility == 3.0
    assert System(PROBLEM, Linearised(NETWORK)).mobility == 3.0
    assert System(PROBLEM, MLP(INPUT_DIM, 4, 1, key=jr.key(0))).mobility == 1.0


@pytest.mark.parametrize(
    ("names", "moving"),
    [
        ("all", {"hidden_weight", "hidden_bias", "output_weight"}),
        ("output", {"output_weight"}),
        ("hidden", {"hidden_weight", "hidden_bias"}),
        ("hidden_bias", {"hidden_bias"}),
        ("biases", {"hidden_bias"}),
        (("biases", "output"), {"hidden_bias", "output_weight"}),
        (("output", "hidden_bias"), {"output_weight", "hidden_bias"}),
    ],
)
def test_names_of_layers_and_leaves(names, moving):
    weights = System(PROBLEM, NETWORK, names).weights(NETWORK)
    assert {
        name for name in ("hidden_weight", "hidden_bias", "output_weight") if getattr(weights, name) is not None
    } == (moving)


def test_a_name_is_not_the_prefix_of_another():
    model = MLP(INPUT_DIM, 2, 10, key=jr.key(0))  # layers[1] and layers[10]
    weights = System(PROBLEM, model, "layers[1]").weights(model)
    assert [i for i, layer in enumerate(weights.layers) if layer.weight is not None] == [1]
    weights = System(PROBLEM, model, "layers").weights(model)
    assert all(layer.weight is not None for layer in weights.layers)

    class TwoScales(eqx.Module):
        scale: jax.Array
        scale_of_the_output: jax.Array

        def __call__(self, x):
            return self.scale_of_the_output * jnp.tanh(self.scale @ x)

    model = TwoScales(jnp.ones(INPUT_DIM), jnp.ones(()))
    weights = System(PROBLEM, model, "scale").weights(model)
    assert weights.scale is not None
    assert weights.scale_of_the_output is None


def test_biases_of_any_model():
    for model, number in (
        (MLP(INPUT_DIM, 4, 2, key=jr.key(0)), 3),
        (eqx.nn.MLP(INPUT_DIM, 1, 4, 2, key=jr.key(0)), 3),
        (Linearised(NETWORK), 1),
    ):
        leaves = jax.tree.leaves(System(PROBLEM, model, "biases").weights(model))
        assert [leaf.ndim for leaf in leaves] == [1] * number
    with pytest.raises(ModelError, match="no weights called 'biases'"):
        System(PROBLEM, MeanFieldNetwork(INPUT_DIM, 3, bias=False, key=jr.key(0)), "biases")


def test_a_model_may_mean_other_weights_by_a_common_name():
    class OwnBiases(eqx.Module):
        weight_groups: ClassVar = {"biases": "shift"}
        bias: jax.Array
        shift: jax.Array

        def __call__(self, x):
            return jnp.sum(x * self.bias) + self.shift

    model = OwnBiases(jnp.ones(INPUT_DIM), jnp.ones(()))
    weights = System(PROBLEM, model, "biases").weights(model)
    assert weights.bias is None
    assert weights.shift is not None


def test_a_layer_without_bias_is_still_a_layer():
    model = MeanFieldNetwork(INPUT_DIM, 3, bias=False, key=jr.key(0))
    weights = System(PROBLEM, model, "hidden").weights(model)
    assert len(jax.tree.leaves(weights)) == 1


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        (NETWORK, "ouput", r"no weights called 'ouput'; did you mean 'output'\? Known names: .*hidden_bias"),
        (NETWORK, ("output", "hiden"), "no weights called 'hiden'; did you mean 'hidden'"),
        (NETWORK, "activation", "no weights called 'activation'"),
        (NETWORK, (), "trainable names no weights of MeanFieldNetwork"),
        (RandomFeatures(INPUT_DIM, 3, key=jr.key(0)), "hidden", "no weights called 'hidden'"),
        (RandomFeatures(INPUT_DIM, 3, key=jr.key(0)), "features.hidden_weight", "no weights called"),
        (Linearised(NETWORK), "base", "no weights called 'base'"),
    ],
)
def test_unknown_names_of_weights(model, names, message):
    with pytest.raises(ModelError, match=message):
        System(PROBLEM, model, names)


@pytest.mark.parametrize(
    ("problem", "model", "message"),
    [
        (PROBLEM, MeanFieldNetwork(5, 3, key=jr.key(0)), r"cannot be called on one training input of shape \(2,\)"),
        (PROBLEM, eqx.nn.MLP(5, 1, 3, 1, key=jr.key(0)), r"cannot be called on one training input of shape \(2,\)"),
        (PROBLEM, MeanFieldNetwork(2, 3, 2, key=jr.key(0)), r"outputs of shape \(2,\).*targets.*\(1,\).*output_dim=1"),
        (make_problem(SoftmaxCrossEntropy(), 3, seed=2), NETWORK, r"outputs of shape \(1,\).*output_dim=3"),
        (make_problem(SoftmaxCrossEntropy(), 3, seed=2), affine(), r"outputs of shape \(\).*output_dim=3"),
        (PROBLEM, eqx.nn.Lambda(lambda x: x), "no trainable weights"),
        (PROBLEM, Affine(jnp.asarray([1, 2]), jnp.asarray([1, 2]), 0.5), "no trainable weights"),
    ],
)
def test_a_model_that_does_not_fit_the_problem(problem, model, message):
    with pytest.raises(ModelError, match=message):
        System(problem, model)


def test_something_that_is_no_problem(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no beartype to say it
    with pytest.raises(ModelError, match="problem is a tuple"):
        System(("x", "y"), NETWORK)


def test_a_model_that_returns_more_than_its_outputs():
    class WithState(eqx.Module):
        weight: jax.Array

        def __call__(self, x):
            return self.weight @ x, self.weight

    with pytest.raises(ModelError, match="WithState returns a tuple for one input"):
        System(PROBLEM, WithState(jnp.ones((1, 2))))


def test_single_precision_weights_are_refused():
    with pytest.raises(PrecisionError, match=r"Affine.*\.slope is float32.*float64"):
        System(PROBLEM, affine(jnp.float32))


def test_a_mask_that_trains_nothing_is_refused():
    class Fixed(eqx.Module):
        weight: jax.Array

        def trainable_mask(self):
            return jax.tree.map(lambda _: False, self)

        def __call__(self, x):
            return self.weight @ x

    with pytest.raises(ModelError, match="Fixed has no trainable weights"):
        System(PROBLEM, Fixed(jnp.ones((1, 2))))


def test_a_system_is_a_pytree_that_passes_through_jit():
    system = System(PROBLEM, NETWORK)
    weights = system.weights(NETWORK)
    loss = dense.quickly(lambda s, w: s.train_loss(w), system, weights)
    np.testing.assert_allclose(loss, system.train_loss(weights), rtol=1e-14)


@pytest.mark.parametrize("traced", ["batch", "model", "both"])
def test_a_system_made_inside_a_compiled_program_is_the_same(traced):
    """Of a batch that is sliced there, of a model that is an argument, of both."""
    rows = jnp.array([2, 0, 3])

    def make(x, y, model):
        system = System(Problem(x[rows], y[rows]), model, "hidden")
        weights = system.weights(model)
        return system, weights, system.train_loss(weights), system.tangent(weights).gram()

    x, y = PROBLEM.x_train, PROBLEM.y_train
    given = {"batch": (x, y, None), "model": (None, None, NETWORK), "both": (x, y, NETWORK)}[traced]

    @eqx.filter_jit
    def program(given):
        return make(*(known if one is None else one for one, known in zip(given, (x, y, NETWORK), strict=True)))

    there, here = program(given), make(x, y, NETWORK)
    assert jax.tree.structure(there) == jax.tree.structure(here)  # with all that is static in it
    for one, other in zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_inside_a_compiled_program_a_model_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"cannot be called on one training input of shape \(3,\)"):
        jax.eval_shape(lambda x, y: System(Problem(x, y), NETWORK), np.zeros((4, 3)), np.zeros(4))
    with pytest.raises(ModelError, match=r"output_dim=2"):
        jax.eval_shape(lambda x, y: System(Problem(x, y), NETWORK), np.zeros((4, INPUT_DIM)), np.zeros((4, 2)))


def test_inside_a_compiled_program_a_mobility_that_is_traced_is_refused():
    class Timed(eqx.Module):
        weight: jax.Array
        mobility: jax.Array

        def __call__(self, x):
            return self.weight @ x

    model = Timed(jnp.ones((1, INPUT_DIM)), jnp.asarray(3.0))
    assert System(PROBLEM, model).mobility == 3.0
    with pytest.raises(ModelError, match=r"Timed\.mobility is an array of the program"):
        jax.eval_shape(lambda model: System(PROBLEM, model), model)


def test_another_batch_of_the_same_shapes_is_not_traced_again():
    calls = []

    class Counted(eqx.Module):
        weight: jax.Array

        def __call__(self, x):
            calls.append(x.shape)
            return self.weight @ x

    for size in (3, 2, 3):
        for scale in (1.0, 2.0):
            problem = Problem(np.full((4, size), scale), np.ones(4))
            System(problem, Counted(scale * jnp.ones((1, size))))
    assert calls == [(3,), (3,), (2,), (2,)]  # whether it fits, and whether it has kinks

    def bad(size):
        with pytest.raises(ModelError, match="cannot be called"):
            System(Problem(np.ones((4, 5)), np.ones(4)), Counted(jnp.ones((1, size))))

    bad(3)
    bad(3)


def test_a_model_whose_leaves_have_no_hash_is_looked_at_each_time():
    class Fixed(eqx.Module):
        weight: jax.Array
        seen: slice

        def __call__(self, x):
            return self.weight @ x[self.seen]

    model = Fixed(jnp.ones((1, INPUT_DIM)), slice(None))
    system = System(PROBLEM, model, "weight")
    np.testing.assert_allclose(system.outputs(system.weights(model)), np.sum(PROBLEM.x_train, axis=1, keepdims=True))
