"""What every theorem must do, by name: refuse what it is not about, name what fails, and say where its proof is."""

import re
from pathlib import Path

import pytest
from facts.recording import make_problem, mean_field

import gnflow as gn
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
