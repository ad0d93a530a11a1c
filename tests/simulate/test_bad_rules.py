"""What is no number for a stop rule, and other odd arguments of a run, are refused by name before anything is computed."""

import numpy as np
import pytest
from facts.recording import make_problem, mean_field

import gnflow as gn
from gnflow.simulate._measure import as_metrics

RULES = (
    gn.RelativeLoss,
    gn.GradientNorm,
    gn.VelocityNorm,
    gn.Movement,
    gn.TestLoss,
    gn.ValidationLoss,
    gn.LossPlateau,
    gn.Stationary,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rule_takes_positive_numbers(rule, value):
    with pytest.raises(
        gn.ConfigError, match=rf"{rule.__name__}: \w+ = .*; expected a .*number above 0.*A usual value is"
    ):
        rule(value)


@pytest.mark.parametrize("value", ["a", True, 1j, [1.0, 2.0], np.ones(2), None, 0, float("nan")], ids=repr)
def test_what_is_no_positive_number(value):
    with pytest.raises(
        gn.ConfigError, match=r"RelativeLoss: tolerance = .*; expected a number above 0 and of at most 1"
    ):
        gn.RelativeLoss(value)
    assert gn.RelativeLoss(np.float64(0.5)) == gn.RelativeLoss(0.5)
    assert gn.GradientNorm(1) == gn.GradientNorm(1.0)


def test_a_plateau_falls_by_less_than_all():
    with pytest.raises(gn.ConfigError, match="expected a number above 0 and below 1"):
        gn.LossPlateau(fall=2.0)


def test_metrics_are_a_tuple():
    with pytest.raises(gn.ConfigError, match="expected a tuple, such as"):
        as_metrics(gn.metrics.KernelDistance())
    assert as_metrics([gn.metrics.KernelDistance()]) == (gn.metrics.KernelDistance(),)


def test_a_tolerance_below_rounding():
    with pytest.raises(gn.ConfigError, match="rtol = 1e-17; expected a number above 1e-14 and below 1"):
        gn.simulate(make_problem(), mean_field(1), gn.flows.GradientFlow(), t1=1.0, rtol=1e-17)
