"""The output layer by least squares, against NumPy's pseudo-inverse and what a pre-trained start must be."""

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

import gnflow as gn
from gnflow.geometry import fit_output_layer
from gnflow.models import MLP, Centred, MeanFieldNetwork, RandomFeatures

KEY = jr.key(0)
PROBLEM = gn.problems.teacher_student(n_train=8, n_test=0, input_dim=3, teacher_width=2, key=KEY)
WIDE = MeanFieldNetwork(3, 20, output_init_scale=1.0, key=jr.key(1))
NARROW = MeanFieldNetwork(3, 4, key=jr.key(1))


def residual(model, problem=PROBLEM):
    return np.linalg.norm(jax.vmap(model)(problem.x_train) - problem.y_train) / np.linalg.norm(problem.y_train)


@pytest.mark.parametrize("model", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_is_the_pseudo_inverse(model):
    features = model.output_factor * np.asarray(jax.vmap(model.hidden_features)(PROBLEM.x_train))
    fitted = fit_output_layer(model, PROBLEM, cutoff=0.0 if model is WIDE else 1e-13)
    expected = np.linalg.pinv(features) @ np.asarray(PROBLEM.y_train)
    np.testing.assert_allclose(fitted.output_weight, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_array_equal(fitted.hidden_weight, model.hidden_weight)
    assert (residual(fitted) < 1e-8) == (model is WIDE)


def test_the_cutoff_keeps_the_modes_above_it():
    features = WIDE.output_factor * np.asarray(jax.vmap(WIDE.hidden_features)(PROBLEM.x_train))
    values, modes = np.linalg.eigh(features @ features.T)
    cutoff = np.sqrt(values[-3] * values[-4]) / values[-1]  # three modes are above it
    fitted = fit_output_layer(WIDE, PROBLEM, cutoff=cutoff)
    left = np.asarray(PROBLEM.y_train) - jax.vmap(fitted)(PROBLEM.x_train)
    np.testing.assert_allclose(modes[:, -3:].T @ left, 0, atol=1e-10)
    np.testing.assert_allclose(modes[:, :-3].T @ left, modes[:, :-3].T @ PROBLEM.y_train, rtol=1e-9)


@pytest.mark.parametrize(
    "model",
    [MLP(3, 12, 2, key=jr.key(2)), RandomFeatures.of(WIDE), Centred(WIDE)],
    ids=["mlp with biases", "random features", "centred"],
)
def test_models_with_an_output_layer(model):
    fitted = fit_output_layer(model, PROBLEM)
    assert residual(fitted) < 1e-4 < residual(model)
    assert jax.tree.structure(fitted) == jax.tree.structure(model)


def test_a_flow_of_the_output_layer_has_nothing_left_to_do():
    fitted = fit_output_layer(WIDE, PROBLEM)
    flow = gn.flows.Frozen(gn.flows.GaussNewtonFlow(damping=gn.damping.Constant(0.0)), "output")
    after = gn.iterate(PROBLEM, fitted, flow, step_size=8.0, num_steps=1, stop=None).model
    np.testing.assert_allclose(after.output_weight, fitted.output_weight, rtol=1e-5, atol=1e-6)


class Shifted(eqx.Module):
    """Not linear in the weights that it calls its output layer."""

    weight: jax.Array

    @property
    def weight_groups(self):
        return {"output": ("weight",)}

    def __call__(self, x):
        return (1.0 + self.weight @ x) ** 2


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(gn.ModelError, match="not linear in the weights called 'output'"):
        fit_output_layer(Shifted(jr.normal(jr.key(3), (3,))), PROBLEM)
    classes = gn.Problem(PROBLEM.x_train, np.arange(8) % 2, loss=gn.losses.LogisticLoss())
    with pytest.raises(gn.DataError, match="LogisticLoss; expected SquaredLoss"):
        fit_output_layer(WIDE, classes)
    with pytest.raises(gn.ModelError, match="no weights called 'output'"):
        fit_output_layer(gn.models.Linearised(WIDE), PROBLEM)
    with pytest.raises(gn.ModelError, match="cutoff"):
        fit_output_layer(WIDE, PROBLEM, cutoff=-1.0)
