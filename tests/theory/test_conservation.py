"""What flows along J^T conserve: runs that do, hypotheses that fail, weights that were nudged."""

import dataclasses
import sys

import equinox as eqx
import numpy as np
import pytest
from facts.recording import make_problem, mean_field, mlp
from simulate.test_solver_use import Drift
from theory.runs import as_if, failing, run

import gnflow as gn
from gnflow.flows import Frozen, GaussNewtonFlow, GradientFlow
from gnflow.geometry.damping import Constant
from gnflow.models import RandomFeatures
from gnflow.theory import Verdict, verify
from gnflow.theory._conservation import Conservation, _Sides

# Of seeds 0 to 7 this one meets no kink at which the flow slides, where any explicit solver takes very many steps.
SEED = 4


def relu_run(flow, **options):
    settings = {"stop": None, "t1": 0.3, "rtol": 1e-6, "solver": "dopri8"} | options
    return run(flow, problem=make_problem(SEED), model=mean_field(SEED, "relu"), **settings)


@pytest.fixture(scope="module")
def particles():
    return relu_run(GradientFlow())


@pytest.fixture(scope="module")
def linear():
    """Three layers with biases, whose factors differ."""
    return run(GradientFlow(), model=mlp(0, "identity"), stop=None, t1=2.5, rtol=1e-6)


def test_particles_of_a_relu_network(particles):
    certificate = verify(particles, Conservation())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    (claim,) = certificate.claims
    assert claim.observed < 1e-5
    assert certificate.constants["norm of the change of V^T V and of W~ W~^T, layer 1"] > 0.1


@pytest.mark.slow
def test_gauss_newton_flow_conserves_it_too():
    """The law is that of w' = -J^T a, whatever a is."""
    certificate = verify(relu_run(GaussNewtonFlow("hessian", Constant(0.05))), Conservation())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert certificate.claims[0].observed < 1e-5


@pytest.mark.slow
def test_layers_of_a_deep_linear_network_with_biases(linear):
    assert len({layer.factor for layer in linear.model.layers}) > 1
    certificate = verify(linear, Conservation())
    assert certificate.verdict == Verdict.HOLDS, str(certificate)
    assert len(certificate.claims) == 2
    assert max(claim.observed for claim in certificate.claims) < 1e-5
    assert all("V^T V - W~ W~^T" in claim.name for claim in certificate.claims)


@pytest.mark.slow
def test_the_matrix_law_is_more_than_its_diagonal(linear):
    """Two units rotated into each other on one side only: the balance of every unit could stay, the matrix does not."""
    layers = linear.model.layers
    weight = np.array(layers[0].weight)
    weight[0] += 1e-3 * weight[1] / np.linalg.norm(weight[1])
    model = eqx.tree_at(lambda m: m.layers[0].weight, linear.model, np.asarray(weight))
    certificate = Conservation().certify(as_if(linear, lambda rerun: dataclasses.replace(rerun, model=model)))
    assert certificate.verdict == Verdict.VIOLATED
    assert "layer 1" in certificate.reason


@pytest.mark.parametrize("part", ["hidden_weight", "hidden_bias", "output_weight"])
def test_a_nudged_weight_violates_it(particles, part):
    weight = getattr(particles.model, part)
    index = (3,) if weight.ndim == 1 else (3, 1)
    nudged = weight.at[index].add(1e-2 * np.sign(float(weight[index])))
    model = eqx.tree_at(lambda m: getattr(m, part), particles.model, nudged)
    certificate = Conservation().certify(as_if(particles, lambda rerun: dataclasses.replace(rerun, model=model)))
    assert certificate.verdict == Verdict.VIOLATED
    assert "unit" in certificate.reason
    assert verify(dataclasses.replace(particles, model=model), Conservation()).verdict == Verdict.VIOLATED


def test_a_loose_tolerance_excuses_nothing():
    """A nudge that the reruns do not have is not excused by it."""
    rough = relu_run(GradientFlow(), rtol=0.05)
    assert verify(rough, Conservation()).verdict == Verdict.HOLDS
    model = eqx.tree_at(lambda m: m.output_weight, rough.model, rough.model.output_weight + 3e-3)
    assert verify(dataclasses.replace(rough, model=model), Conservation()).verdict == Verdict.VIOLATED


def test_weights_that_did_not_move_say_nothing(particles):
    still = as_if(particles, lambda rerun: dataclasses.replace(rerun, model=particles.initial_model))
    certificate = Conservation().certify(still)
    assert [claim.verdict for claim in certificate.claims] == [Verdict.UNDECIDED]


# Of one run: only what a hypothesis reads is changed.
REFUSED = {
    "silu": ({"initial_model": mean_field()}, "positively homogeneous"),
    "random features": ({"initial_model": RandomFeatures.of(mean_field())}, "two-layer network"),
    "frozen": ({"flow": Frozen(GradientFlow(), "hidden")}, "all weights move"),
    "another flow": ({"flow": Drift()}, "not for Drift(), which has no gain"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_runs_are_refused(particles, case):
    changes, hypothesis = REFUSED[case]
    certificate = verify(dataclasses.replace(particles, **changes), Conservation())
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert hypothesis in certificate.reason
    assert certificate.claims == ()


def test_a_flow_that_brings_its_own_velocity_is_refused(particles):
    class Decaying(GradientFlow):
        """Weight decay: not along J^T."""

        def velocity_and_diagnostics(self, time, weights, system):
            raise NotImplementedError

    certificate = verify(dataclasses.replace(particles, flow=Decaying()), Conservation())
    assert "w' = -J^T a" in certificate.reason


def test_silu_breaks_the_law(particles):
    """If the hypothesis is not checked, the claim fails: it is not empty."""
    silu = run(
        GradientFlow(),
        problem=make_problem(SEED),
        model=mean_field(SEED),
        stop=None,
        t1=0.3,
        rtol=1e-6,
        solver="dopri8",
    )
    assert "it is silu" in verify(silu, Conservation()).reason
    posing = [
        eqx.tree_at(lambda m: m.activation, model, gn.models.get_activation("relu"))
        for model in (silu.initial_model, silu.model)
    ]
    posing_run = dataclasses.replace(particles, initial_model=posing[0])
    changed = as_if(posing_run, lambda rerun: dataclasses.replace(rerun, model=posing[1]))
    assert failing(Conservation().certify(changed))


def test_steps_are_refused():
    steps = gn.iterate(make_problem(), mean_field(0, "relu"), GradientFlow(), step_size=0.1, num_steps=3)
    assert "continuous" in verify(steps, Conservation()).reason


@pytest.mark.slow
def test_matrices_by_blocks(linear, monkeypatch):
    expected = verify(linear, Conservation()).claims
    monkeypatch.setattr(sys.modules["gnflow.theory._conservation"], "_ROWS", 3)
    for claim, other in zip(expected, verify(linear, Conservation()).claims, strict=True):
        np.testing.assert_allclose(other.error_bound, claim.error_bound, rtol=1e-9)
        np.testing.assert_allclose(other.observed, claim.observed, rtol=1e-3)


@pytest.mark.parametrize("whole", [True, False])
def test_what_an_error_of_the_weights_does_to_the_law(whole):
    """2 |w| e + e^2 against random errors and the worst direction."""
    rng = np.random.default_rng(0)
    sides = _Sides(rng.normal(size=(5, 3)), rng.normal(size=(2, 5)))
    size = sides.norm if whole else sides.largest_unit

    def law(sides):
        return np.concatenate([(out - inner).ravel() for out, inner in sides.blocks(whole)])

    unit = int(np.argmax(np.sum(sides.incoming**2, axis=1) + np.sum(sides.outgoing**2, axis=0)))
    worst = 0.0
    for trial in range(2000):
        incoming, outgoing = rng.normal(size=(5, 3)), rng.normal(size=(2, 5))
        if trial == 0:  # along the weights of the largest unit, outwards on one side and inwards on the other
            incoming, outgoing = np.zeros((5, 3)), np.zeros((2, 5))
            incoming[unit], outgoing[:, unit] = -sides.incoming[unit], sides.outgoing[:, unit]
        for error in (1e-3, 1.0):
            factor = error / np.hypot(np.linalg.norm(incoming), np.linalg.norm(outgoing))
            other = _Sides(sides.incoming + factor * incoming, sides.outgoing + factor * outgoing)
            change = float(np.linalg.norm(law(other) - law(sides)))
            assert change <= 2 * size * error + error**2
            worst = max(worst, change / (2 * size * error))
    assert worst > (0.3 if whole else 0.99)
