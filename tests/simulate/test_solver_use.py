"""What `simulate` makes of the solvers: which it chooses, at which tolerance, and which of their steps it accepts."""

import importlib
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from linear import arguments_of_a_controller
from simulate.linear import Axes, Linear, flow_down

import gnflow as gn
from gnflow.flows import (
    AbstractOutputFlow,
    DualGaussNewtonFlow,
    Frozen,
    GaussNewtonFlow,
    GradientFlow,
    ReversibleGaussNewtonFlow,
    Scaled,
    SpectralFlow,
    WeightDecay,
)
from gnflow.geometry import Direction
from gnflow.geometry.damping import Constant
from gnflow.geometry.directions import Cholesky, ConjugateGradients
from gnflow.metrics import PathLength
from gnflow.simulate._controller import AbstractErrorNorm, ResidualController
from gnflow.simulate._global_error import StepErrors
from gnflow.solvers import ExponentialRungeKutta, LowRankKvaerno5

AT_THE_START = gn.RelativeLoss(1.0)  # ends the run before anything is integrated, and so compiled


class Drift(AbstractOutputFlow):
    """A flow of the user's, without a linearisation: `speed` times gradient flow."""

    speed: float = 1.0

    def direction(self, time, tangent, system):
        gradient = system.loss.gradient(tangent.outputs, system.problem.y_train)
        return Direction(coefficients=self.speed * gradient, diagnostics=None)


class Blind(diffrax.Tsit5):
    """An explicit solver that sees no error at all."""

    def step(self, *args, **options):
        y1, y_error, *rest = super().step(*args, **options)
        return y1, jax.tree.map(jnp.zeros_like, y_error), *rest


STIFF = {
    "gradient": GradientFlow(),
    "spectral": SpectralFlow(power=0.5),
    "dual gauss-newton": DualGaussNewtonFlow(),
    "frozen gradient": Frozen(GradientFlow()),
    "scaled gradient": Scaled(GradientFlow(), {"output": 0.1}),
}
RATES_OF_ONE_SIZE = {
    "gauss-newton, identity": GaussNewtonFlow("identity"),
    "gauss-newton, hessian": GaussNewtonFlow("hessian"),
    "gauss-newton, cholesky": GaussNewtonFlow("fisher", solver=Cholesky()),
    "gauss-newton, conjugate gradients": GaussNewtonFlow("identity", Constant(0.1), ConjugateGradients()),
    "frozen gauss-newton": Frozen(GaussNewtonFlow("identity"), trainable="hidden"),
    "weight decay": WeightDecay(GaussNewtonFlow("identity"), {"hidden": 0.1}),
}


@pytest.mark.parametrize("name", STIFF)
def test_auto_is_the_exponential_solver_for_stiff_flows(name):
    trajectory = gn.simulate(make_problem(), mean_field(), STIFF[name], stop=AT_THE_START)
    assert trajectory.stats["solver"] == trajectory.settings["solver"] == "exponential"
    assert "stiffness" in trajectory.stats["solver_reason"]


@pytest.mark.parametrize("name", RATES_OF_ONE_SIZE)
def test_auto_begins_with_an_explicit_solver_for_the_others(name):
    trajectory = gn.simulate(make_problem(), mean_field(), RATES_OF_ONE_SIZE[name], stop=AT_THE_START)
    assert (trajectory.stats["solver"], trajectory.settings["solver"]) == ("tsit5", "auto")
    assert trajectory.stats["solver_reason"] == "the flow is not stiff"


def test_no_kind_of_flow_is_left_out():
    # The flow of reversible networks has no Gram matrix of all outputs, and so no linearisation.
    kinds = set(gn.flows.flow_kinds.values()) - {ReversibleGaussNewtonFlow}
    assert kinds == {type(flow) for flow in (*STIFF.values(), *RATES_OF_ONE_SIZE.values())}


@pytest.mark.parametrize(("t1", "expected"), [(1e-3, "tsit5"), (19.0, "tsit5"), (21.0, "exponential")])
def test_auto_is_explicit_where_the_run_ends_before_the_fastest_mode_has_decayed(t1, expected):
    """Both modes of the axes decay at the rate 1/2, and the border is at exp(-10)."""
    trajectory = flow_down(t1=t1, stop=AT_THE_START)
    assert trajectory.stats["solver"] == expected
    if expected == "tsit5":
        assert f"exp(-{t1 / 2:.2g})" in trajectory.stats["solver_reason"]


def test_the_fastest_mode_decides_of_all():
    """Rates 1/2 and 50: t1 = 1 is short for the one and long for the other."""
    assert flow_down(Axes(scales=(1.0, 10.0)), t1=1.0, stop=AT_THE_START).stats["solver"] == "exponential"
    assert flow_down(Axes(scales=(1.0, 1.0)), t1=1.0, stop=AT_THE_START).stats["solver"] == "tsit5"


@pytest.mark.parametrize(
    ("flow", "rtol", "expected"),
    [
        (GaussNewtonFlow("identity"), 1e-4, "dopri8"),
        (GaussNewtonFlow("identity"), 2e-4, "tsit5"),
        (Frozen(GaussNewtonFlow("identity")), 1e-8, "dopri8"),
        (GradientFlow(), 1e-8, "exponential"),
        (SpectralFlow(power=0.5), 1e-8, "exponential"),
    ],
    ids=["gauss-newton", "gauss-newton, looser", "frozen", "gradient", "spectral"],
)
def test_auto_is_of_order_8_where_the_flow_is_not_stiff_and_the_tolerance_tight(flow, rtol, expected):
    trajectory = gn.simulate(make_problem(), mean_field(), flow, stop=AT_THE_START, rtol=rtol)
    assert (trajectory.stats["solver"], trajectory.settings["rtol"]) == (expected, rtol)


@pytest.mark.parametrize("flow", [Drift(), Frozen(Drift(), trainable="w")], ids=["plain", "frozen"])
def test_a_flow_without_linearisation(flow):
    trajectory = flow_down(flow=flow, stop=AT_THE_START)
    assert trajectory.stats["solver"] == "tsit5"
    assert "linearisation" in trajectory.stats["solver_reason"]
    for solver in ("exponential", "kvaerno5", ExponentialRungeKutta(), LowRankKvaerno5()):
        with pytest.raises(gn.ConfigError, match=r"AbstractLinearisedFlow.*'tsit5'"):
            flow_down(flow=flow, stop=AT_THE_START, solver=solver)
    for solver in ("dopri8", diffrax.Tsit5()):
        assert flow_down(flow=flow, stop=AT_THE_START, solver=solver).stats["solver_reason"] == "asked for"


@pytest.mark.parametrize(
    ("solver", "name"),
    [
        ("auto", "exponential"),
        ("exponential", "exponential"),
        (ExponentialRungeKutta(), "exponential"),
        ("kvaerno5", "kvaerno5"),
        ("dopri8", "dopri8"),
        (diffrax.Tsit5(), "tsit5"),
        (Blind(), "blind"),
    ],
    ids=str,
)
def test_the_tolerance_is_the_same_for_all_unless_given(solver, name):
    default, given = (flow_down(stop=AT_THE_START, solver=solver, rtol=value) for value in (None, 1e-6))
    assert (default.settings["solver"], default.settings["rtol"]) == (name, 1e-3)
    assert given.settings["rtol"] == 1e-6


@pytest.fixture(scope="module")
def bend():
    """bend(solver, **numbers): gradient flow of a network whose rates spread over decades, with its path length."""
    problem = make_problem()
    steep = gn.Problem(problem.x_train * jnp.array([[30.0], [1.0], [1.0], [0.1]]), problem.y_train)

    def run(solver, **numbers):
        return gn.simulate(steep, mean_field(), GradientFlow(), metrics=(PathLength(),), solver=solver, **numbers)

    return run


def test_the_recorded_tolerance_is_the_one_used(bend):
    default = bend("auto")
    same, other = (bend("auto", rtol=default.settings["rtol"] / factor) for factor in (1, 5))
    assert default.settings["rtol"] == same.settings["rtol"]
    np.testing.assert_array_equal(default.data.train_loss, same.data.train_loss)
    assert default.stats["num_steps"] == same.stats["num_steps"] < other.stats["num_steps"]


@pytest.mark.slow
def test_the_path_length_inside_long_steps(bend):
    """Its integrand changes by decades within one exponential step."""
    long, short = bend("exponential", rtol=5e-3), bend("tsit5", rtol=1e-4)
    assert long.stats["num_steps"] < 30 < short.stats["num_steps"] / 2
    np.testing.assert_allclose(long.data.path_length[-1], short.data.path_length[-1], rtol=1e-3)


class Given(AbstractErrorNorm):
    """The same scaled error for every step."""

    value: Any

    def scaled_error(self, change, system, tolerated):
        return self.value


@jax.jit(static_argnames=("monotone", "min_growth"))
def judge(error, rise=0.0, *, monotone=True, min_growth=0.2):
    """A step of length 1 that raises the residual by the factor 1 + rise: whether it is kept at rtol = 0.1; the next length."""
    model = Linear.at([0.0, 0.0])
    system = GradientFlow().system(Axes().problem, model)
    before = system.weights(model)
    after = eqx.tree_at(lambda tree: tree.w, before, -rise * jnp.asarray(Axes().targets))
    args = arguments_of_a_controller(system)
    controller = ResidualController(0.1, 1e-13, 1e-13, Given(error), monotone=monotone, min_growth=min_growth)
    start, end, length = jnp.asarray(0.0), jnp.asarray(1.0), jnp.asarray(1.0)
    _, state = controller.init(None, start, end, (before, {}), length, args, None, 4)
    keep, next_start, next_end, _, _, _ = controller.adapt_step_size(
        start, end, (before, {}), (after, {}), args, StepErrors((before, {}), before), 4, state
    )
    return keep, next_end - next_start


@pytest.mark.parametrize("error", [1.01, 3.0])
def test_a_rejected_step_is_halved_at_least(error):
    """By the fourth root the rule itself would ask for 0.9 and 0.7 of the step."""
    keep, length = judge(error)
    assert not keep
    np.testing.assert_allclose(length, 0.5, rtol=1e-12)


@pytest.mark.parametrize("error", [1e6, np.inf, np.nan])
@pytest.mark.parametrize("min_growth", [0.2, 0.02])
def test_a_large_error_shortens_the_step_as_far_as_the_solver_allows(error, min_growth):
    keep, length = judge(error, min_growth=min_growth)
    assert not keep
    np.testing.assert_allclose(length, min_growth, rtol=0.6)
    assert length >= min_growth


def test_a_rise_of_the_loss_is_an_error():
    """Whatever the estimate says; the residual may grow by rtol of itself."""
    assert judge(0.0, rise=0.09)[0]
    assert not judge(0.0, rise=0.11)[0]
    assert judge(0.0, rise=0.11, monotone=False)[0]


def test_no_accepted_step_of_a_gradient_flow_raises_the_loss(monkeypatch):
    """Rates 1/2 and 450: a solver that sees no error steps far beyond its stability, again and again."""
    losses = []
    module = importlib.import_module("gnflow.simulate._integrate")
    monkeypatch.setattr(module, "_FIRST_STEPS", 1)
    monkeypatch.setattr(module, "_MOST_STEPS", 1)
    monkeypatch.setattr(module.ProgressBar, "update", lambda bar, time, loss, steps: losses.append(loss))
    trajectory = flow_down(Axes(scales=(1.0, 30.0)), solver=Blind(), t1=2.0, stop=None, rtol=1e-3, progress=True)
    assert trajectory.result.code == gn.ResultCode.TIME_REACHED
    assert trajectory.stats["num_rejected_steps"] > 10
    assert losses.pop() == trajectory.data.train_loss[-1]  # at the end the bar is told of the run's own end
    assert len(losses) == trajectory.stats["num_steps"]
    residuals = np.sqrt([Axes().loss(0.0), *losses])
    assert np.all(residuals[1:] < (1 + 1e-3) * residuals[:-1])


def test_a_flow_without_linearisation_may_climb():
    trajectory = flow_down(flow=Drift(-1.0), t1=2.0, stop=None, rtol=1e-6)
    np.testing.assert_allclose(trajectory.data.train_loss[-1], Axes().loss(-2.0), rtol=1e-5)
