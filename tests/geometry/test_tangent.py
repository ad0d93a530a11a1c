"""Outputs, J, J^T and Gram matrices of every kind of tangent against the whole Jacobian, over the shared cases."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from oracles import dense
from oracles.cases import CASES, INPUT_DIM, MODELS, Case, displaced, every_case, few_cases, make_problem

from gnflow._core import tree_dot, tree_size
from gnflow.geometry import GenericTangent, System, _generic, make_tangent
from gnflow.geometry._deep import DeepTangent
from gnflow.geometry._two_layer import TwoLayerTangent
from gnflow.geometry._wrapped import WrappedTangent
from gnflow.losses import SquaredLoss
from gnflow.models import MLP, MeanFieldNetwork

# Forward mode over the model's own call and the closed forms differ by rounding only.
close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13)


@functools.cache
def joined(case: Case):
    """The system, the weights and the tangents on training and test inputs of a case."""
    system = System(case.problem, case.model, case.trainable)
    weights = system.weights(case.model)
    return system, weights, system.tangent(weights), system.tangent(weights, case.problem.x_test)


def random_like(weights, seed):
    leaves, structure = jax.tree.flatten(weights)
    keys = jr.split(jr.key(seed), len(leaves))
    return jax.tree.unflatten(structure, [jr.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])


@every_case
def test_the_weights_are_exactly_the_named_leaves(case):
    system, weights, _, _ = joined(case)
    np.testing.assert_array_equal(dense.flat(jax.tree.leaves(weights)), dense.flat(case.leaves(weights)))
    np.testing.assert_array_equal(dense.flat(case.leaves(weights)), dense.flat(case.leaves(case.model)))
    assert eqx.tree_equal(system.model(weights), case.model)


@every_case
def test_outputs(case):
    system, weights, tangent, test_tangent = joined(case)
    expected = dense.outputs(case.model, case.problem.x_train)
    close(tangent.outputs, expected)
    close(system.outputs(weights), expected)
    close(test_tangent.outputs, dense.outputs(case.model, case.problem.x_test))
    close(system.train_loss(weights), case.problem.loss.value(jnp.asarray(expected), case.problem.y_train))


@every_case
def test_jvp_and_vjp(case):
    _, weights, tangent, _ = joined(case)
    jacobian, _ = dense.case_jacobians(case)
    displacement = random_like(weights, 1)
    close(tangent.jvp(displacement).reshape(-1), jacobian @ dense.flat(case.leaves(displacement)), atol=1e-12)
    coefficients = jr.normal(jr.key(2), tangent.outputs.shape)
    image = tangent.vjp(coefficients)
    assert jax.tree.structure(image) == jax.tree.structure(weights)
    assert [leaf.shape for leaf in jax.tree.leaves(image)] == [leaf.shape for leaf in jax.tree.leaves(weights)]
    close(dense.flat(case.leaves(image)), jacobian.T @ np.asarray(coefficients).reshape(-1), atol=1e-12)
    close(jnp.vdot(coefficients, tangent.jvp(displacement)), tree_dot(image, displacement), atol=1e-12)


@every_case
def test_gram_matrices(case):
    _, _, tangent, test_tangent = joined(case)
    jacobian, test_jacobian = dense.case_jacobians(case)
    gram = np.asarray(tangent.gram())
    close(gram, jacobian @ jacobian.T, atol=1e-12)
    np.testing.assert_allclose(gram, gram.T, rtol=1e-14, atol=1e-15 * np.abs(gram).max())
    eigenvalues = np.linalg.eigvalsh(gram)
    assert eigenvalues[0] > -len(gram) * dense.EPSILON * eigenvalues[-1]
    close(test_tangent.cross_gram(tangent), test_jacobian @ jacobian.T, atol=1e-12)
    close(tangent.cross_gram(test_tangent), jacobian @ test_jacobian.T, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean field silu", TwoLayerTangent),
        ("frozen mean field: output", TwoLayerTangent),
        ("mlp depth 2, mean field", DeepTangent),
        ("frozen mlp: hidden", DeepTangent),
        ("random features", WrappedTangent),
        ("linearised mlp", WrappedTangent),
        ("equinox mlp", GenericTangent),
    ],
)
def test_each_model_gets_its_closed_form(kind, expected):
    case = next(case for case in CASES if case.kind == kind)
    tangent = joined(case)[2]
    assert type(tangent) is expected
    if expected is WrappedTangent:
        assert not isinstance(tangent.inner, GenericTangent)


def test_a_new_closed_form_is_registered_for_its_class():
    class Doubled(MeanFieldNetwork):
        pass

    class DoubledTangent(GenericTangent):
        pass

    network = MeanFieldNetwork(INPUT_DIM, 3, key=jr.key(0))
    model = object.__new__(Doubled)
    for name, value in vars(network).items():
        object.__setattr__(model, name, value)
    problem = make_problem(SquaredLoss(), 1, jr.key(1))
    make_tangent.register(Doubled, lambda structure, weights, x: DoubledTangent(weights, structure, x))
    system = System(problem, model)
    assert type(system.tangent(system.weights(model))) is DoubledTangent
    system = System(problem, network)
    assert type(system.tangent(system.weights(network))) is TwoLayerTangent


@pytest.mark.parametrize("kind", ["equinox mlp", "frozen equinox mlp: leaf"])
def test_the_generic_gram_in_chunks_is_the_whole_one(kind, monkeypatch):
    case = next(case for case in CASES if case.kind == kind and case.num_outputs == 3)
    system, weights, *_ = joined(case)
    x, other_x = jr.normal(jr.key(1), (5, INPUT_DIM)), jr.normal(jr.key(2), (7, INPUT_DIM))
    jacobian = dense.jacobian(case.model, case.leaves, np.concatenate([x, other_x]))
    left, right = jacobian[: 5 * 3], jacobian[5 * 3 :]
    tangent, other = system.tangent(weights, x), system.tangent(weights, other_x)
    bytes_of_a_sample = 8 * 3 * tree_size(weights)
    for samples in (1, 2, 3):  # 5 and 7 samples in chunks of these sizes need padding
        monkeypatch.setattr(_generic, "_CHUNK_BYTES", samples * bytes_of_a_sample + 1)
        close(tangent.gram(), left @ left.T, atol=1e-12)
        close(tangent.cross_gram(other), left @ right.T, atol=1e-12)
        close(other.cross_gram(tangent), right @ left.T, atol=1e-12)
    monkeypatch.setattr(_generic, "_CHUNK_BYTES", 1)  # less than one sample's rows: one at a time all the same
    close(tangent.gram(), left @ left.T, atol=1e-12)


def test_chunks_are_never_larger_than_asked_for_and_lose_no_sample():
    for count in range(1, 9):
        x = jnp.arange(2.0 * count).reshape(count, 2)
        for chunk in range(1, 10):
            chunks = _generic._chunks(x, chunk)
            assert chunks.shape[1] <= chunk
            np.testing.assert_array_equal(chunks.reshape(-1, 2)[:count], x)
            assert chunks.shape[0] * chunks.shape[1] - count < chunks.shape[1]


def test_the_generic_tangent_agrees_with_the_closed_forms():
    for kind in ("mean field silu", "mlp depth 2, mean field"):
        case = next(case for case in CASES if case.kind == kind and case.num_outputs == 3)
        system, weights, tangent, _ = joined(case)
        generic = GenericTangent(weights, system.structure, case.problem.x_train)
        close(generic.outputs, tangent.outputs)
        close(generic.gram(), tangent.gram(), atol=1e-12)
        displacement = random_like(weights, 3)
        close(generic.jvp(displacement), tangent.jvp(displacement), atol=1e-12)


@few_cases
def test_a_gram_matrix_under_jit_and_vmap(case):
    system, weights, tangent, _ = joined(case)
    other = random_like(weights, 4)
    batch = jax.tree.map(lambda a, b: jnp.stack([a, b]), weights, other)
    # The system is an argument: its data must not have to be constants of the compiled function.
    grams = eqx.filter_jit(lambda w, s: jax.vmap(lambda one: s.tangent(one).gram())(w))(batch, system)
    close(grams[0], tangent.gram(), atol=1e-12)
    close(grams[1], system.tangent(other).gram(), rtol=1e-10, atol=1e-11)


def test_a_model_of_images_needs_no_flattening():
    class OfImages(eqx.Module):
        linear: eqx.nn.Linear

        def __call__(self, x):
            return jnp.tanh(self.linear(x.reshape(-1)))

    x = jr.normal(jr.key(0), (3, 2, 2))
    model = OfImages(eqx.nn.Linear(4, 2, key=jr.key(1)))
    weights, structure = eqx.partition(model, eqx.is_inexact_array)
    tangent = make_tangent(structure, weights, x)
    jacobian = dense.jacobian(model, lambda m: [m.linear.weight, m.linear.bias], x)
    close(tangent.gram(), jacobian @ jacobian.T)


def test_the_formula_of_the_two_layer_gram_written_out_by_hand():
    def silu(z):
        return z / (1 + np.exp(-z))

    def silu_derivative(z):
        return 1 / (1 + np.exp(-z)) * (1 + z * (1 - 1 / (1 + np.exp(-z))))

    for bias in (True, False):
        key = jr.key(5)
        model = MeanFieldNetwork(
            INPUT_DIM, 4, 3, output_init_scale=1.0, bias=bias, output_scale=2.0, output_exponent=0.7, key=key
        )
        problem = make_problem(SquaredLoss(), 3, jr.key(6))
        system = System(problem, model)
        expected = dense.two_layer_gram(
            model.hidden_weight,
            model.hidden_bias,
            model.output_weight,
            silu,
            silu_derivative,
            2.0 / 4**0.7,
            problem.x_train,
        )
        close(system.tangent(system.weights(model)).gram(), expected)


def test_no_activation_and_no_capability_is_missing_from_the_cases():
    from gnflow.models import activation_names

    networks = [case.model for case in CASES if isinstance(case.model, MeanFieldNetwork)]
    assert {network.activation.name for network in networks} == set(activation_names)
    assert any(network.hidden_bias is None for network in networks)
    assert {network.output_exponent for network in networks} == {0.5, 0.75, 1.0}
    assert all(jnp.all(network.output_weight != 0) for network in networks)
    deep = [case.model for case in CASES if isinstance(case.model, MLP)]
    assert {model.parametrisation for model in deep} == {"ntk", "mean_field"}
    assert {len(model.layers) - 1 for model in deep} == {1, 2, 3}
    assert {case.kind for case in CASES} == set(MODELS)
    assert {case.loss for case in CASES} == {"squared", "softmax", "logistic", "huber"}


def test_displaced_moves_every_floating_leaf():
    model = MLP(INPUT_DIM, 3, 1, key=jr.key(0))
    moved = displaced(model, jr.key(1))
    assert all(bool(jnp.all(a != b)) for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(moved), strict=True))
