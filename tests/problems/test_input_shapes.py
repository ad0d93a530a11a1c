"""Inputs of any shape: what a problem keeps of them, which models refuse them, and runs on them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import gnflow as gn
from gnflow.config import Specification
from gnflow.problems import from_file

rng = np.random.default_rng(0)
IMAGES, TARGETS = rng.normal(size=(5, 2, 2, 1)), rng.normal(size=(5, 2))
PROBLEM = gn.Problem(IMAGES[:3], TARGETS[:3], IMAGES[3:], TARGETS[3:])


class Convolution(eqx.Module):
    """One convolution of images (2, 2, 1) and two outputs. On a grid of one place it is a linear model of the flat image."""

    conv: eqx.nn.Conv2d

    def __call__(self, x):
        return self.conv(jnp.moveaxis(x, 2, 0)).reshape(-1)


class Embedding(eqx.Module):
    """The mean of the embeddings of token ids (T,)."""

    table: eqx.nn.Embedding
    casts: bool = eqx.field(static=True)

    def __call__(self, tokens):
        return jnp.mean(jax.vmap(self.table)(tokens.astype(int) if self.casts else tokens), axis=0)


MODEL = Convolution(eqx.nn.Conv2d(1, 2, 2, key=jr.key(0)))


def flat_twin(model):
    """The linear model of flat images that computes the same function."""
    linear = eqx.nn.Linear(4, 2, key=jr.key(0))
    weights = model.conv.weight.reshape(2, 4), model.conv.bias.reshape(2)
    return eqx.tree_at(lambda m: (m.weight, m.bias), linear, weights)


def test_a_problem_keeps_the_shape_of_its_inputs():
    assert PROBLEM.input_shape == (2, 2, 1)
    np.testing.assert_array_equal(PROBLEM.x_test, IMAGES[3:])
    with pytest.raises(gn.DataError, match=r"\(2, 2, 1\).*vectors"):
        _ = PROBLEM.input_dim
    assert gn.Problem(IMAGES.reshape(5, 4), TARGETS).input_dim == 4


@pytest.mark.parametrize("run", ["flow", "iteration in batches"])
def test_a_run_on_images_is_that_on_flat_images(run, tmp_path):
    flat = gn.Problem(IMAGES[:3].reshape(3, 4), TARGETS[:3], IMAGES[3:].reshape(2, 4), TARGETS[3:])

    def trajectory(problem, model):
        if run == "flow":
            flow = gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(0.1))
            return gn.simulate(problem, model, flow, t1=1.0, solver="tsit5", metrics=(gn.metrics.KernelDistance(),))
        flow = gn.flows.GradientFlow()
        return gn.iterate(problem, model, flow, step_size=0.1, num_steps=4, batch_size=2, key=jr.key(1))

    images, twin = trajectory(PROBLEM, MODEL), trajectory(flat, flat_twin(MODEL))
    assert set(images.data) == set(twin.data)
    for name in images.data:
        np.testing.assert_allclose(images.data[name], twin.data[name], rtol=1e-9, atol=1e-12, err_msg=name)
    images.save(tmp_path / "run")
    np.testing.assert_array_equal(gn.load(tmp_path / "run", model=MODEL).problem.x_train, PROBLEM.x_train)


@pytest.mark.parametrize(
    "model",
    [
        gn.models.MLP(2, 3, 1, 2, key=jr.key(0)),
        gn.models.MeanFieldNetwork(2, 3, 2, key=jr.key(0)),
        gn.models.RandomFeatures(2, 3, 2, key=jr.key(0)),
        gn.models.ReversibleMLP(2, 3, 1, 2, key=jr.key(0)),
        eqx.nn.MLP(2, 2, 3, 1, key=jr.key(0)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_of_vectors_refuse_images(model):
    for shape in ((2, 2), (3, 3), (2, 2, 1)):  # also where their products happen to be possible
        with pytest.raises(gn.ModelError, match=r"needs inputs that are vectors: x\.reshape\(len\(x\), -1\)"):
            gn.System(gn.Problem(np.ones((4, *shape)), np.ones((4, 2))), model)


def test_metrics_of_directions_say_that_they_need_vectors():
    class Particles(Convolution):
        hidden_weight: jax.Array

    model = Particles(MODEL.conv, jnp.ones((3, 4)))
    problem = gn.Problem(IMAGES, TARGETS, teacher=model)
    with pytest.raises(gn.DataError, match=r"\(2, 2, 1\).*vectors"):
        gn.metrics.DirectionDistance("teacher").variables(gn.System(problem, model))


def test_token_ids_stay_exact_and_a_model_casts_them():
    ids = np.array([[2**53, 1], [0, 2]])
    assert gn.Problem(ids, np.ones(2)).x_train[0, 0] == 2**53
    tokens, table = np.array([[0, 1, 3], [2, 2, 0]]), eqx.nn.Embedding(4, 2, key=jr.key(0))
    problem = gn.Problem(tokens, np.ones((2, 2)))
    model = Embedding(table, casts=True)
    outputs = gn.System(problem, model).outputs(gn.System(problem, model).weights(model))
    np.testing.assert_allclose(outputs, np.asarray(table.weight)[tokens].mean(axis=1), rtol=1e-14)
    with pytest.raises(gn.ModelError, match=r"tokens\.astype\(int\)"):
        gn.System(problem, Embedding(table, casts=False))


def test_a_file_holds_images_and_a_configuration_refuses_them_for_vectors(tmp_path):
    file = tmp_path / "images.npz"
    np.savez(file, x_train=IMAGES, y_train=TARGETS)
    assert from_file(file).input_shape == (2, 2, 1)
    assert from_file(file, n_train=2, n_test=1, key=jr.key(0)).x_test.shape == (1, 2, 2, 1)
    table = {
        "problem": {"kind": "file", "path": str(file)},
        "model": {"kind": "mlp", "width": 3, "depth": 1},
        "flows": {"gradient": {"kind": "gradient"}},
    }
    spec = Specification.from_dict(table).cells[0]
    with pytest.raises(gn.ConfigError, match=r"model: one input has the shape \(2, 2, 1\).*vectors"):
        spec.prepare()
