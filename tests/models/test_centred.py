"""`Centred`: the function that a model begins with is taken away, and nothing else changes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import gnflow as gn
from gnflow.config import Specification
from gnflow.models import MLP, Centred, Linearised, MeanFieldNetwork, RandomFeatures, has_kinks, trainable_weights
from gnflow.theory._hypotheses import is_linear

rng = np.random.default_rng(0)
X, Y = jnp.asarray(rng.normal(size=(6, 2))), jnp.asarray(rng.normal(size=(6, 1)))
PROBLEM = gn.Problem(X[:4], Y[:4], X[4:], Y[4:])
MEAN_FIELD = MeanFieldNetwork(2, 5, output_init_scale=3.0, key=jr.key(0))
EQUINOX = eqx.nn.MLP(2, 1, 3, 1, activation=jnp.tanh, key=jr.key(1))


@pytest.mark.parametrize("model", [MEAN_FIELD, EQUINOX, Linearised(MEAN_FIELD)], ids=lambda model: type(model).__name__)
def test_the_first_function_is_taken_away(model):
    centred, x = Centred(model), X[0]
    np.testing.assert_array_equal(centred(x), jnp.zeros(1))
    weights, structure = trainable_weights(centred)
    there = eqx.combine(jax.tree.map(lambda leaf: leaf + 0.1, weights), structure)
    np.testing.assert_allclose(there(x), there.model(x) - model(x), rtol=0, atol=1e-14)
    assert abs(float(there(x)[0])) > 1e-3
    system = gn.System(PROBLEM, there)
    np.testing.assert_allclose(system.outputs(system.weights(there))[0], there(x), rtol=0, atol=1e-14)


def test_it_says_of_itself_what_its_model_says():
    centred = Centred(MEAN_FIELD)
    assert centred.mobility == 5
    assert centred.weight_groups["output"] == ("model.output_weight",)
    np.testing.assert_array_equal(centred.hidden_features(X[0]), MEAN_FIELD.hidden_features(X[0]))
    assert has_kinks(Centred(MLP(2, 3, 2, activation="relu", key=jr.key(0)))) is True
    of_equinox = gn.System(PROBLEM, Centred(EQUINOX))
    assert of_equinox.has_kinks is False
    assert of_equinox.mobility == 1
    with pytest.raises(gn.ModelError, match="no hidden_features"):
        gn.metrics.FeatureAlignment().variables(of_equinox)
    for model, expected in ((RandomFeatures(2, 3, key=jr.key(0)), True), (MEAN_FIELD, False)):
        system = gn.System(PROBLEM, Centred(model))
        assert is_linear(system, system.weights(Centred(model))) is expected


def test_a_flow_on_it_is_that_of_the_model_on_shifted_targets():
    shift = jax.vmap(MEAN_FIELD)(PROBLEM.x_train), jax.vmap(MEAN_FIELD)(PROBLEM.x_test)
    shifted = gn.Problem(X[:4], Y[:4] + shift[0], X[4:], Y[4:] + shift[1])
    flow = gn.flows.Frozen(gn.flows.GradientFlow(), trainable="output")
    options = {"t1": 1.0, "solver": "tsit5", "metrics": (gn.metrics.FeatureAlignment(),)}
    one = gn.simulate(PROBLEM, Centred(MEAN_FIELD), flow, **options)
    other = gn.simulate(shifted, MEAN_FIELD, flow, **options)
    for name in other.data:
        np.testing.assert_allclose(one.data[name], other.data[name], rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(one.model.model.output_weight, other.model.output_weight, rtol=1e-8)
    assert float(one.data.train_loss[0]) == pytest.approx(float(jnp.mean(Y[:4] ** 2)) / 2)
    np.testing.assert_array_equal(one.model.start.output_weight, MEAN_FIELD.output_weight)


@pytest.mark.parametrize("model", [MEAN_FIELD, EQUINOX], ids=["gnflow's", "the user's"])
def test_it_is_saved_and_loaded(model, tmp_path):
    trajectory = gn.iterate(PROBLEM, Centred(model), gn.flows.GradientFlow(), step_size=0.1, num_steps=2)
    trajectory.save(tmp_path / "run")
    template = {} if model is MEAN_FIELD else {"model": Centred(model)}
    loaded = gn.load(tmp_path / "run", **template)
    assert eqx.tree_equal(eqx.filter(loaded.model, eqx.is_array), eqx.filter(trajectory.model, eqx.is_array))
    np.testing.assert_array_equal(loaded.model(X[0]), trajectory.model(X[0]))


def specification(**model):
    return Specification.from_dict(
        {
            "problem": {"kind": "teacher_student", "n_train": 4, "n_test": 2, "input_dim": 2, "teacher_width": 2},
            "model": {"kind": "mlp", "width": 3, "depth": 1, **model},
            "flows": {"gradient": {"kind": "gradient"}},
        }
    ).cells[0]


def test_a_configuration_says_centred():
    made = specification(centred=True).prepare()
    assert isinstance(made.model, Centred)
    plain, written = specification(), specification(centred=False)
    assert eqx.tree_equal(made.model.model, plain.prepare().model)
    assert plain == written
    assert plain.content_hash() == written.content_hash() != specification(centred=True).content_hash()
    with pytest.raises(gn.ConfigError, match=r"model\.centred = 1 is an integer; expected true or false"):
        specification(centred=1)
