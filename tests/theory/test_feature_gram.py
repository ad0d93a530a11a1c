"""The feature Gram matrix on runs: invertible, not invertible, not to be told, and a record that was changed."""

import dataclasses
import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import jacobian, make_problem, mean_field, mlp
from theory.runs import tampered

import gnflow as gn
from gnflow.flows import Frozen, GradientFlow
from gnflow.metrics import NTKSpectrum
from gnflow.models import MeanFieldNetwork, RandomFeatures
from gnflow.theory import Evidence, Verdict
from gnflow.theory._feature_gram import FeatureGram


@functools.cache
def base():
    """One step of a discrete method: the theorem is about the start."""
    return gn.iterate(
        make_problem(), mean_field(), GradientFlow(), step_size=0.1, num_steps=1, metrics=(NTKSpectrum(),)
    )


def steps(model=None, problem=None, flow=None):
    """A run of other parts, of which only the start is looked at: with its first losses, without its spectrum."""
    given = {"initial_model": model, "problem": problem, "flow": flow}
    data = base().data.drop_vars("ntk_smallest_eigenvalue")
    run = dataclasses.replace(base(), data=data, **{name: part for name, part in given.items() if part is not None})
    system = run.flow.system(run.problem, run.initial_model)
    weights = system.weights(run.initial_model)
    losses = {"train_loss": system.train_loss(weights)}
    if run.problem.x_test is not None:
        losses["test_loss"] = system.loss.value(system.outputs(weights, run.problem.x_test), run.problem.y_test)
    return tampered(run, **{name: np.full(2, float(value)) for name, value in losses.items()})


def certify(trajectory):
    return FeatureGram().certify(Evidence(trajectory))


@pytest.fixture(scope="module")
def trajectory():
    return base()


def test_a_random_first_layer_is_enough(trajectory):
    certificate = certify(trajectory)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    model, x = trajectory.initial_model, np.asarray(trajectory.problem.x_train)
    z = x @ np.asarray(model.hidden_weight).T + np.asarray(model.hidden_bias)
    features = z / (1 + np.exp(-z))
    expected = np.linalg.eigvalsh(features @ features.T / 8)[0]
    np.testing.assert_allclose(certificate.constants["sigma_min(S S^T/M)"], expected, rtol=1e-9)
    dense = jacobian(model, x)
    np.testing.assert_allclose(
        certificate.constants["sigma_min(A_0)"], np.linalg.eigvalsh(dense @ dense.T)[0], rtol=1e-9
    )
    np.testing.assert_allclose(certificate.constants["c^2 sigma_min(S S^T)"], expected / 8, rtol=1e-9)


@pytest.mark.parametrize("kind", ["random features", "frozen"])
def test_where_only_the_output_layer_moves_the_two_are_equal(kind):
    model = RandomFeatures.of(mean_field()) if kind == "random features" else mean_field()
    flow = GradientFlow() if kind == "random features" else Frozen(GradientFlow(), "output")
    run = steps(model, flow=flow)
    certificate = certify(run)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert any("only the output layer" in claim.name for claim in certificate.claims)


NETWORK = {"hidden_weight": jax.random.normal(jax.random.key(3), (8, 2)), "output_weight": jnp.ones((8, 2))}
REFUSED = {
    "the model is a two-layer network": {"model": mlp()},
    "the output layer moves": {"flow": Frozen(GradientFlow(), "hidden")},
    "s is analytic and no polynomial": {"model": mean_field(activation="relu")},
    "as many different particles": {"model": MeanFieldNetwork(2, 3, 2, key=jax.random.key(0))},
    "x~_n != x~_m": {"problem": gn.Problem(make_problem().x_train[jnp.array([0, 0, 1, 2])], make_problem().y_train)},
    "x~_n != 0": {
        "problem": gn.Problem(make_problem().x_train.at[1].set(0.0), make_problem().y_train),
        "model": MeanFieldNetwork.from_arrays(hidden_bias=None, **NETWORK),
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_hypotheses_that_fail_are_named(name):
    certificate = certify(steps(**REFUSED[name]))
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert name in certificate.reason
    assert certificate.claims == ()


def test_particles_that_repeat_do_not_count():
    """Eight particles, but only two different ones for four samples."""
    few = mean_field(width=2)
    twice = [jnp.tile(a, (4, *(1,) * (a.ndim - 1))) for a in (few.hidden_weight, few.hidden_bias, few.output_weight)]
    certificate = certify(steps(MeanFieldNetwork.from_arrays(*twice)))
    assert "as many different particles" in certificate.reason


def test_inputs_opposite_to_each_other():
    """Without bias an odd activation has s(u.x) = -s(-u.x); with bias x~ = (x, 1) and (-x, 1) differ."""
    x = make_problem().x_train
    problem = gn.Problem(x.at[1].set(-x[0]), make_problem().y_train)
    odd = MeanFieldNetwork.from_arrays(hidden_bias=None, activation="tanh", **NETWORK)
    assert "x~_n != -x~_m" in certify(steps(odd, problem)).reason
    assert certify(steps(mean_field(activation="tanh"), problem)).verdict == Verdict.HOLDS


def test_parallel_inputs_of_different_length_are_enough():
    """Weaker than the condition of Arbel et al., as the proof allows; the largest cosine is reported."""
    x = make_problem().x_train
    problem = gn.Problem(x.at[1].set(2 * x[0]), make_problem().y_train)
    certificate = certify(steps(MeanFieldNetwork.from_arrays(hidden_bias=None, **NETWORK), problem))
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    np.testing.assert_allclose(certificate.constants["largest |cos(x~_n, x~_m)|"], 1.0, rtol=1e-12)


def test_a_positive_eigenvalue_below_rounding_is_undecided():
    """First-layer weights of 1e-4 make tanh linear to 1e-12: four samples in three dimensions are then dependent."""
    model = MeanFieldNetwork(2, 8, 2, "tanh", init_scale=1e-4, key=jax.random.key(0))
    certificate = certify(steps(model))
    assert certificate.verdict == Verdict.UNDECIDED, str(certificate)
    assert "> 0" in certificate.reason


def test_first_losses_and_weights_that_do_not_belong_together(trajectory):
    """What the theorem is about, the weights of the start, are those of the record."""
    other = dataclasses.replace(trajectory, initial_model=mean_field(3))
    loss = trajectory.data.train_loss.to_numpy()
    for changed in (other, tampered(trajectory, train_loss=1.01 * loss)):
        changed = dataclasses.replace(changed, data=changed.data.drop_vars("ntk_smallest_eigenvalue"))
        certificate = certify(changed)
        assert certificate.verdict == Verdict.VIOLATED
        assert "the training loss is that of the stored weights" in certificate.reason
        assert "Not certified: the rest of the record" in certificate.compared


def test_a_recorded_eigenvalue_that_was_changed(trajectory):
    smallest = trajectory.data.ntk_smallest_eigenvalue.to_numpy()
    certificate = certify(tampered(trajectory, ntk_smallest_eigenvalue=0.99 * smallest))
    assert certificate.verdict == Verdict.VIOLATED
    assert "recorded" in certificate.reason


def test_features_that_are_not_those_of_the_ntk(monkeypatch, trajectory):
    """A bound computed with twice the features says so, where the hidden layer adds little to A."""
    module = sys.modules["gnflow.theory._feature_gram"]
    true = module._feature_eigenvalues

    def doubled(network, x):
        eigenvalues, trace = true(network, x)
        return 2 * eigenvalues, 2 * trace

    monkeypatch.setattr(module, "_feature_eigenvalues", doubled)
    model = mean_field()
    quiet = eqx.tree_at(lambda m: m.output_weight, model, 1e-3 * model.output_weight)
    certificate = certify(steps(quiet))
    assert certificate.verdict == Verdict.VIOLATED
    assert ">= c^2" in certificate.reason
