"""A flow of the user's that states its gain gets its certificates, with nothing of gnflow touched; a wrong gain is seen."""

import jax.numpy as jnp
import pytest
from facts.recording import make_problem, mean_field, mlp
from theory.runs import run

import gnflow as gn
from gnflow.geometry import AbstractOutputMetric, IdentityMetric
from gnflow.geometry.damping import AbstractDamping, Constant
from gnflow.models import RandomFeatures
from gnflow.theory import Verdict, verify


class FilterGain(gn.flows.AbstractGain):
    """k(lam) = (1 - exp(-tau lam))/lam."""

    is_truncated = False
    is_increasing = True

    tau: float
    metric: AbstractOutputMetric = IdentityMetric()
    damping: AbstractDamping = Constant(0.0)

    def value(self, eigenvalues, damping):
        return -jnp.expm1(-self.tau * eigenvalues) / eigenvalues


class Own(gn.flows.AbstractOutputFlow):
    """w' = -J^T k(A) g for the gain that it is given, in the identity metric; `stated`: what it says, if that is another."""

    law: gn.flows.AbstractGain
    stated: gn.flows.AbstractGain | None = None

    def gain(self, system):
        return self.law if self.stated is None else self.stated

    def never_ascends(self, system):
        return system.has_kinks is False

    def direction(self, time, tangent, system):
        gradient = system.loss.gradient(tangent.outputs, system.problem.y_train)
        lam, vectors = jnp.linalg.eigh(tangent.gram())
        gains = self.law(lam, self.law.damping(time, gn.damping.Spectrum.of(lam)))
        coefficients = vectors @ (gains * (vectors.T @ gradient.reshape(-1)))
        return gn.geometry.Direction(coefficients.reshape(gradient.shape), diagnostics=None)


NEWTON = gn.flows.InverseGain(metric=IdentityMetric(), damping=Constant(0.0))


@pytest.mark.parametrize(
    ("law", "model", "theorem"),
    [
        (FilterGain(30.0), mean_field(), "sandwich"),
        (FilterGain(30.0), RandomFeatures.of(mean_field()), "kernel dynamics"),
        (NEWTON, mean_field(), "exact rate"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_flow_with_a_gain_gets_its_certificates(law, model, theorem):
    certificate = verify(run(Own(law), model=model, stop=None, t1=6.0, rtol=1e-6), theorem)
    assert certificate.verdict == Verdict.HOLDS, str(certificate)


def test_its_conserved_quantities():
    model = mlp(activation="relu", depth=1)
    certificate = verify(run(Own(FilterGain(3.0)), model=model, stop=None, t1=0.5, rtol=1e-6), "conservation")
    assert certificate.verdict == Verdict.HOLDS, str(certificate)


def test_a_gain_that_is_not_the_flows_is_found_out():
    flow = Own(FilterGain(30.0), FilterGain(60.0))
    certificate = verify(
        run(flow, model=RandomFeatures.of(mean_field()), stop=None, t1=6.0, rtol=1e-6), "kernel dynamics"
    )
    assert certificate.verdict == Verdict.VIOLATED, str(certificate)


def test_a_flow_without_one_gets_none():
    certificate = verify(run(gn.flows.DualGaussNewtonFlow(1.0, "exact"), stop=None, t1=1.0), "sandwich")
    assert certificate.verdict == Verdict.ASSUMPTIONS_NOT_MET
    assert "the flow has a gain that increases" in certificate.reason
    assert gn.flows.DualGaussNewtonFlow(1.0, "exact").gain(gn.System(make_problem(), mean_field())) is None


class Unstated(FilterGain):
    """A gain that does not say that it increases."""

    is_increasing = False


def test_a_damping_that_is_not_measured_is_not_called_constant():
    law = Unstated(30.0, damping=Constant(1e-3))
    certificate = verify(run(Own(law), model=RandomFeatures.of(mean_field()), stop=None, t1=1.0), "kernel dynamics")
    assert certificate.verdict == Verdict.UNDECIDED, str(certificate)
    assert "eps is constant along the run" in certificate.reason
