"""What every theorem must do, by name: refuse what it is not about, name what fails, and say where its proof is."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from facts.recording import make_problem, mean_field

import gnflow as gn
from gnflow.flows import AbstractLinearisedFlow
from gnflow.theory import AbstractTheorem, Evidence, Verdict, theorem_kinds

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def steps():
    """Gradient descent on a loss without strong convexity: no theorem about flows of the squared loss applies."""
    problem = make_problem(loss=gn.losses.SoftmaxCrossEntropy())
    return Evidence(gn.iterate(problem, mean_field(), gn.flows.GradientFlow(), step_size=0.1, num_steps=2))


@pytest.mark.parametrize("name", theorem_kinds)
def test_it_is_described(name):
    kind = theorem_kinds[name]
    assert issubclass(kind, AbstractTheorem)
    assert kind.name == name
    assert kind.statement
    (page, *_) = re.findall(r"docs/theorems/\w+\.md", kind.reference)
    assert f"gnflow/theory/{kind.__module__.rpartition('.')[2]}.py" in (ROOT / page).read_text(encoding="utf-8")
    assert kind.__doc__
    assert page in kind.__doc__


# The only one whose subject is the start of a run, however it goes on.
ABOUT_THE_START = {"feature Gram"}


@pytest.mark.parametrize("name", theorem_kinds)
def test_it_refuses_a_run_it_is_not_about(name, steps):
    certificate = theorem_kinds[name]().certify(steps)
    if name in ABOUT_THE_START:
        assert certificate.verdict != Verdict.VIOLATED
        return
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET, str(certificate)
    failed = [check for check in certificate.checks if check.met is False]
    assert failed[0].name in certificate.reason
    assert certificate.claims == ()
    assert str(certificate)
    assert certificate.to_json()
    assert certificate.plot().axes


# A theorem that holds with terms beside -J^T a, too: it is true of any smooth flow.
OF_ANY_FLOW = {"discretisation"}


class Pulled(AbstractLinearisedFlow):
    """Gradient flow of the user's, with its gain, beside a decay of its own."""

    inner: gn.flows.GradientFlow = gn.flows.GradientFlow()

    def direction(self, time, tangent, system):
        return self.inner.direction(time, tangent, system)

    def linearisation(self, time, tangent, system, decomposition):
        return self.inner.linearisation(time, tangent, system, decomposition)

    def gain(self, system):
        return self.inner.gain(system)

    def decay(self, weights, system):
        return jax.tree.map(lambda leaf: jnp.asarray(0.1), weights)


@pytest.fixture(
    scope="module",
    params=[
        gn.flows.WeightDecay(gn.flows.GradientFlow(), 0.1),
        gn.flows.WeightDecay(gn.flows.GaussNewtonFlow(), {"hidden_weight": 0.1, "hidden_bias": 0.2, "output": 0.3}),
        Pulled(),
    ],
    ids=["weight decay", "rates of groups", "of the user's"],
)
def decaying(request):
    return Evidence(gn.simulate(make_problem(), mean_field(), request.param, t1=1.0, stop=None))


@pytest.mark.parametrize("name", [name for name in theorem_kinds if name not in ABOUT_THE_START | OF_ANY_FLOW])
def test_a_flow_with_weight_decay_is_none_it_is_about(name, decaying):
    certificate = theorem_kinds[name]().certify(decaying)
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert certificate.reason.startswith("not met: the flow is -J^T a, without weight decay")
    assert "\n" not in certificate.reason
    assert certificate.claims == certificate.record == ()


def test_nothing_says_that_its_loss_falls(decaying):
    """What gradient flow with decay never raises is not the loss alone."""
    assert decaying.decays
    assert not decaying.never_ascends
    plain = Evidence(gn.simulate(make_problem(), mean_field(), gn.flows.GradientFlow(), t1=1.0, stop=None))
    assert plain.never_ascends
    assert not plain.decays
