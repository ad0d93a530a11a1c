"""Outputs, J, J^T and Gram matrices of every kind of tangent against the whole Jacobian, over the shared cases."""

import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from oracles import dense
from oracles.cases import (
    CASES,
    FEW_CASES,
    INPUT_DIM,
    MODELS,
    Case,
    every_case,
    few_cases,
    make_problem,
    random_like,
)

from gnflow._core import tree_size
from gnflow.geometry import GenericTangent, System, _generic, make_tangent
from gnflow.geometry._deep import DeepTangent
from gnflow.geometry._two_layer import TwoLayerTangent
from gnflow.geometry._wrapped import WrappedTangent
from gnflow.losses import SquaredLoss
from gnflow.models import MLP, MeanFieldNetwork

# Forward mode over the model's own call and the closed forms differ by rounding only.
close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-12)


@functools.cache
def joined(case: Case):
    """The system, the weights and the tangent on the training inputs of a case."""
    system = System(case.problem, case.model, case.trainable)
    weights = system.weights(case.model)
    return system, weights, system.tangent(weights)


def everything(system, weights, displacement, coefficients):
    tangent, test_tangent = system.tangent(weights), system.tangent(weights, system.problem.x_test)
    return {
        "outputs": tangent.outputs,
        "test_outputs": test_tangent.outputs,
        "outputs_of_the_system": system.outputs(weights),
        "train_loss": system.train_loss(weights),
        "test_loss": system.test_loss(weights),
        "jvp": tangent.jvp(displacement),
        "vjp": tangent.vjp(coefficients),
        "gram": tangent.gram(),
        "gram_product": tangent.gram_operator()(coefficients),
        "sample_blocks": tangent.sample_blocks(),
        "projected_gram": tangent.projected_gram(jnp.stack([coefficients, coefficients[::-1] ** 2])),
        "test_kernel": test_tangent.cross_gram(tangent),
    }


@every_case
def test_outputs_products_and_gram_matrices_are_those_of_the_whole_jacobian(case):
    system = System(case.problem, case.model, case.trainable)
    weights = system.weights(case.model)
    np.testing.assert_array_equal(dense.flat(jax.tree.leaves(weights)), dense.flat(case.leaves(case.model)))
    displacement = random_like(weights, seed=1)
    coefficients = jnp.asarray(np.random.default_rng(2).normal(size=case.problem.y_train.shape))
    got = dense.quickly(everything, system, weights, displacement, coefficients)
    expected = dense.dense_case(case)

    close(got["outputs"], expected.outputs)
    close(got["test_outputs"], expected.test_outputs)
    close(got["outputs_of_the_system"], expected.outputs)
    loss = case.problem.loss
    close(got["train_loss"], loss.value(jnp.asarray(expected.outputs), case.problem.y_train))
    samples, outputs = case.problem.y_train.shape
    gram, vector = expected.jacobian @ expected.jacobian.T, np.asarray(coefficients)
    close(got["gram_product"].reshape(-1), gram @ vector.reshape(-1))
    blocks = gram.reshape(samples, outputs, samples, outputs)
    close(got["sample_blocks"], np.stack([blocks[n, :, n, :] for n in range(samples)]))
    projected = sum(np.einsum("nc,ncmd,md->nm", v, blocks, v) for v in (vector, vector[::-1] ** 2))
    close(got["projected_gram"], projected)
    close(got["test_loss"], loss.value(jnp.asarray(expected.test_outputs), case.problem.y_test))

    jacobian, test_jacobian = expected.jacobian, expected.test_jacobian
    close(got["jvp"].reshape(-1), jacobian @ dense.flat(case.leaves(displacement)))
    assert jax.tree.structure(got["vjp"]) == jax.tree.structure(weights)
    assert [leaf.shape for leaf in jax.tree.leaves(got["vjp"])] == [leaf.shape for leaf in jax.tree.leaves(weights)]
    close(dense.flat(case.leaves(got["vjp"])), jacobian.T @ np.asarray(coefficients).reshape(-1))

    gram = np.asarray(got["gram"])
    close(gram, jacobian @ jacobian.T)
    np.testing.assert_allclose(gram, gram.T, rtol=1e-14, atol=1e-15 * np.abs(gram).max())
    eigenvalues = np.linalg.eigvalsh(gram)
    assert eigenvalues[0] > -len(gram) * dense.EPSILON * eigenvalues[-1]
    close(got["test_kernel"], test_jacobian @ jacobian.T)


@few_cases
def test_the_weights_and_the_rest_make_the_model_again(case):
    system, weights, _ = joined(case)
    leaves, structure = jax.tree.flatten(system.model(weights))
    model_leaves, model_structure = jax.tree.flatten(case.model)
    assert structure == model_structure
    for leaf, model_leaf in zip(leaves, model_leaves, strict=True):
        np.testing.assert_array_equal(leaf, model_leaf) if eqx.is_array(leaf) else None


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
    problem = make_problem(SquaredLoss(), 1, seed=1)
    make_tangent.register(Doubled, lambda structure, weights, x: DoubledTangent(weights, structure, x))
    system = System(problem, model)
    assert type(system.tangent(system.weights(model))) is DoubledTangent
    system = System(problem, network)
    assert type(system.tangent(system.weights(network))) is TwoLayerTangent


@pytest.mark.parametrize(
    ("kind", "num_outputs", "samples"),
    [
        ("equinox mlp", 3, 2),
        ("equinox mlp", 3, 3),
        ("frozen equinox mlp: leaf", 3, 0.01),
        ("convolutional", 1, 2),
        ("convolutional", 1, 7),
    ],
)
def test_the_generic_gram_in_chunks_is_the_whole_one(kind, num_outputs, samples, monkeypatch):
    case = next(case for case in CASES if case.kind == kind and case.num_outputs == num_outputs)
    system, weights, _ = joined(case)
    rng = np.random.default_rng(1)
    x, other_x = rng.normal(size=(5, INPUT_DIM)), rng.normal(size=(7, INPUT_DIM))
    jacobian = dense.jacobian(case.model, case.leaves, np.concatenate([x, other_x]))
    left, right = jacobian[: 5 * num_outputs], jacobian[5 * num_outputs :]
    # 5 and 7 samples in chunks of 2 and 3 need padding; less memory than one sample's rows means one sample at a time.
    monkeypatch.setattr(_generic, "MOST_BYTES_OF_ROWS", int(2 * samples * 8 * num_outputs * tree_size(weights)))

    def grams(x, other_x):
        tangent, other = system.tangent(weights, x), system.tangent(weights, other_x)
        return tangent.gram(), tangent.cross_gram(other), other.cross_gram(tangent)

    gram, cross, transposed = dense.quickly(grams, jnp.asarray(x), jnp.asarray(other_x))
    close(gram, left @ left.T)
    close(cross, left @ right.T)
    close(transposed, right @ left.T)


def test_kernels_of_convolutions_have_no_group_for_each_sample():
    case = next(case for case in CASES if case.kind == "convolutional")
    system, weights, _ = joined(case)
    program = str(jax.make_jaxpr(lambda w: system.tangent(w).gram())(weights))
    groups = re.findall(r"(?:feature|batch)_group_count=(\d+)", program)
    assert groups
    assert set(groups) == {"1"}  # such groups take XLA up to a hundred times as long


def test_chunks_are_never_larger_than_asked_for_and_lose_no_sample():
    for count, chunks_of in ((1, (1, 3)), (5, (1, 2, 3, 5, 9)), (7, (2, 3, 4))):
        x = jnp.asarray(np.arange(2.0 * count).reshape(count, 2))
        for chunk in chunks_of:
            chunks = _generic._chunks(x, chunk)
            assert chunks.shape[1] <= chunk
            np.testing.assert_array_equal(chunks.reshape(-1, 2)[:count], x)
            assert chunks.shape[0] * chunks.shape[1] - count < chunks.shape[1]


def test_the_generic_tangent_agrees_with_the_closed_forms():
    for kind in ("mean field silu", "mlp depth 2, mean field"):
        case = next(case for case in CASES if case.kind == kind and case.num_outputs == 3)
        system, weights, tangent = joined(case)
        generic = GenericTangent(weights, system.structure, case.problem.x_train)
        close(generic.outputs, tangent.outputs)
        close(generic.gram(), tangent.gram())


@few_cases
def test_a_gram_matrix_under_jit_and_vmap(case):
    system, weights, tangent = joined(case)
    batch = jax.tree.map(lambda a, b: jnp.asarray(np.stack([a, b])), random_like(weights, 4), weights)
    # The system is an argument: its data need not be constants of the compiled function.
    grams = dense.quickly(lambda w, s: jax.vmap(lambda one: s.tangent(one).gram())(w), batch, system)
    jacobian = dense.dense_case(case).jacobian
    close(grams[1], jacobian @ jacobian.T)
    close(tangent.gram(), jacobian @ jacobian.T)  # and without jit
    assert bool(jnp.all(jnp.isfinite(grams[0])))


@pytest.mark.slow
def test_a_model_of_images_needs_no_flattening():
    class OfImages(eqx.Module):
        linear: eqx.nn.Linear

        def __call__(self, x):
            return jnp.tanh(self.linear(x.reshape(-1)))

    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2)))
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
        problem = make_problem(SquaredLoss(), 3, seed=6)
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
    assert len(FEW_CASES) == 6
    assert {case.loss for case in CASES} == {"squared", "softmax", "logistic", "huber"}
