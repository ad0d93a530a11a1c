"""Which solver a run gets, and what it says about it."""

import re

import diffrax
import jax
import numpy as np
import pytest

import gnflow as gn
from gnflow.flows import DualGaussNewtonFlow, Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
from gnflow.geometry.damping import Constant
from gnflow.geometry.directions import ConjugateGradients
from gnflow.solvers import (
    ExplicitRungeKutta,
    ExponentialRosenbrock,
    ExponentialRungeKutta,
    LowRankKvaerno5,
    Situation,
    StabilisedRungeKutta,
    check_solver,
    choose_solver,
    solver_kinds,
    stages_per_step,
)
from gnflow.solvers._choice import FEW_WEIGHTS


def unknown():
    return None


def never():
    raise AssertionError("nobody asked for the stiffness")


def uncounted():
    raise AssertionError("nobody asked for the work")


def chosen(solver, rtol=1e-3, ran_out=False, **facts):
    """The choice; nobody may ask for the stiffness or for the work unless it is given."""
    usual = {"linearised": True, "is_stiff": True, "has_real_spectrum": False, "has_kinks": False}
    usual |= {"has_constant_hessian": True, "num_outputs": 500, "jacobian": None, "stiffness": never}
    usual |= {"velocity_work": uncounted, "linearisation_work": uncounted}
    return choose_solver(solver, rtol, Situation(**(usual | facts)), ran_out)


@pytest.mark.parametrize(
    ("asked", "name", "reason"),
    [
        ({"stiffness": unknown}, "exponential", "stiffness"),
        ({"stiffness": lambda: 1e6}, "exponential", "stiffness"),
        ({"stiffness": lambda: 10.1}, "exponential", "stiffness"),
        ({"stiffness": lambda: 9.9}, "tsit5", r"exp\(-9\.9\)"),
        ({"stiffness": unknown, "rtol": 1e-8}, "exponential", "stiffness"),
        ({"is_stiff": False, "num_outputs": 4097}, "tsit5", "not stiff"),
        ({"is_stiff": False, "rtol": 2e-4, "num_outputs": 4097}, "tsit5", "not stiff"),
        ({"is_stiff": False, "rtol": 1e-5, "num_outputs": 4097}, "dopri8", "tight"),
        ({"is_stiff": False, "rtol": 1e-5, "has_kinks": True, "num_outputs": 4097}, "tsit5", "not stiff"),
        ({"is_stiff": False, "rtol": 1e-6, "has_kinks": True, "num_outputs": 4097}, "dopri8", "tight"),
        ({"stiffness": unknown, "jacobian": (20, 40)}, "exponential_rosenbrock", "20 weights for more outputs"),
        (
            {"stiffness": unknown, "jacobian": (20, 40), "is_stiff": False, "rtol": 1e-8},
            "exponential_rosenbrock",
            "20 weights",
        ),
        ({"stiffness": lambda: 9.9, "jacobian": (20, 40)}, "tsit5", r"exp\(-9\.9\)"),
        ({"stiffness": unknown, "jacobian": (20, 20)}, "exponential", "stiffness"),
        ({"stiffness": unknown, "jacobian": (300, 12)}, "exponential", "stiffness"),
        ({"jacobian": (300, 12), "ran_out": True}, "exponential_rosenbrock", "used up its steps.* 300 weights"),
        ({"stiffness": unknown, "jacobian": (301, 12), "ran_out": True}, "exponential", "stiffness"),
        ({"stiffness": unknown, "jacobian": (300, 600), "ran_out": True}, "exponential", "stiffness"),
        ({"stiffness": unknown, "ran_out": True}, "exponential", "stiffness"),
        ({"linearised": False}, "tsit5", "no linearisation"),
        ({"linearised": False, "rtol": 1e-5}, "tsit5", "no linearisation"),
    ],
)
def test_what_auto_takes(asked, name, reason):
    choice = chosen("auto", **({"stiffness": unknown} | asked))
    assert choice.name == name
    assert kind(choice) is solver_kinds[name]
    assert choice.change is None
    assert re.search(reason, choice.reason)


def kind(choice):
    """Of the solver, inside the one that reports on the stability of its steps."""
    solver = choice.solver
    return type(solver.inner if isinstance(solver, ExplicitRungeKutta) else solver)


@pytest.mark.parametrize(("rtol", "name"), [(1e-5, "dopri8"), (1e-3, "tsit5")])
def test_a_flow_with_rates_of_one_size_that_turns_out_stiff(rtol, name):
    choice = chosen("auto", rtol, is_stiff=False, stiffness=unknown, velocity_work=lambda: 1e9)
    assert choice.name == name
    change = choice.change
    assert change.successor.name == "exponential"
    assert "stability" in change.successor.reason
    # Ten velocities take a second; it has to show that it gets farther, and is tried once.
    assert (change.least_velocities, change.successor_velocities, change.share) == (10.0, 5.0, None)
    # Velocities without operations take their time, too.
    light = chosen("auto", 1e-5, is_stiff=False, stiffness=unknown, velocity_work=lambda: 1.0)
    assert light.change.least_velocities == 500.0


def test_heavy_velocities_begin_with_order_5():
    first = counted(1.1e8, 1e10)
    assert first.name == "tsit5"
    assert "does not limit" in first.reason
    change = first.change
    assert (change.successor.name, change.least_velocities) == ("stabilised", 0.0)
    assert (change.successor_velocities, change.share) == (None, None)
    assert change.successor.change == counted(0.9e8, 1e10 * 0.9 / 1.1).change._replace(
        least_velocities=change.successor.change.least_velocities
    )


@pytest.mark.parametrize("known", [True, None])
def test_order_5_begins_where_the_model_may_have_kinks(known):
    first = counted(1e7, 1e9, has_kinks=known)
    assert first.name == "tsit5"
    assert "kinks" in first.reason
    assert (first.change.successor.name, first.change.least_velocities) == ("stabilised", 0.0)
    # What follows is what a smooth model has from the start.
    assert first.change.successor.change == counted(1e7, 1e9).change
    # Where a linearisation costs little, nothing changes.
    assert counted(9e7, 8.9e8, has_kinks=known).name == "exponential"


def counted(velocity, linearisation, **facts):
    """What auto takes for gradient flow with so many operations."""
    work = {"velocity_work": lambda: velocity, "linearisation_work": lambda: linearisation}
    return chosen("auto", stiffness=unknown, has_real_spectrum=True, **work, **facts)


@pytest.mark.parametrize(
    ("work", "facts", "name", "reason"),
    [
        ((1e6, 2.1e7), {}, "stabilised", "as long as 21 velocities"),
        ((1e5, 1.9e7), {}, "exponential", "stiffness"),  # a millisecond
        ((9e7, 8.9e8), {}, "exponential", "stiffness"),  # as long as ten velocities
        ((9e7, 1e9), {}, "stabilised", "as long as 11 velocities"),
        ((1e6, 1e9), {"rtol": 9e-7}, "exponential", "stiffness"),
        ((1e6, 1e9), {"rtol": 1.1e-6}, "stabilised", "as long as 1e"),
    ],
)
def test_auto_counts_the_work_of_a_flow_with_a_real_spectrum(work, facts, name, reason):
    choice = counted(*work, **facts)
    assert choice.name == name
    assert reason in choice.reason


def test_the_exponential_solver_is_tried_where_a_step_takes_as_long():
    change = counted(1e7, 1e9).change
    assert (change.successor.name, change.successor.change) == ("exponential", None)
    assert change.successor_velocities == 118
    assert change.least_velocities == 1e3
    # Sooner where it is nearly exact.
    assert change.share < counted(1e7, 1e9, has_constant_hessian=False).change.share < 1
    # With the leading modes alone its steps are those of an explicit solver.
    beyond = counted(1e7, 1e9, num_outputs=4097)
    assert (beyond.name, beyond.change) == ("stabilised", None)


def test_no_solver_is_changed_that_was_asked_for():
    assert chosen("stabilised", has_real_spectrum=True).change is None


@pytest.mark.parametrize("name", solver_kinds)
def test_names(name):
    choice = chosen(name, has_real_spectrum=True)
    assert (choice.name, choice.reason) == (name, "asked for")
    assert kind(choice) is solver_kinds[name]
    assert choice.needs_linearisation == (name in ("exponential", "exponential_rosenbrock", "kvaerno5"))
    assert 0 < choice.min_growth < 1 < choice.max_growth
    # Where stability limits the step there is no trend of the errors to follow.
    assert (choice.anticipation > 0) == (name in ("exponential", "kvaerno5", "stabilised"))
    # An object is what its name is.
    assert chosen(solver_kinds[name](), has_real_spectrum=True)._replace(solver=choice.solver) == choice


def test_a_solver_of_diffrax_without_a_name_here():
    choice = chosen(diffrax.Heun())
    assert choice.name == "heun"
    assert not choice.needs_linearisation


@pytest.mark.parametrize(
    ("solver", "match"),
    [
        ("exponental", "did you mean 'exponential'"),
        ("kvaerno", "did you mean 'kvaerno5'"),
        (diffrax.Euler(), "error estimate"),
        (5, "solver = 5"),
        (None, "solver = None"),
    ],
)
def test_what_is_no_solver(solver, match):
    with pytest.raises(gn.ConfigError, match=match):
        check_solver(solver)
    with pytest.raises(gn.ConfigError, match=match):
        chosen(solver)


@pytest.mark.parametrize(
    "solver", ["exponential", "exponential_rosenbrock", "kvaerno5", ExponentialRungeKutta(), LowRankKvaerno5()]
)
def test_a_flow_without_a_linearisation_is_named(solver):
    with pytest.raises(gn.ConfigError, match=r"linearisation.*tsit5"):
        chosen(solver, linearised=False)


@pytest.mark.parametrize(
    ("solver", "stages"),
    [
        (ExponentialRungeKutta(), 4),
        (ExponentialRosenbrock(), 4),
        (LowRankKvaerno5(), None),
        (StabilisedRungeKutta(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_velocities_in_a_step(solver, stages):
    assert stages_per_step(solver) == stages


def few_weights(width, samples, flow, activation="silu"):
    """The solver of a run with 2 width weights; it ends at its start."""
    x = np.random.default_rng(0).standard_normal((samples, 1))
    model = gn.models.MeanFieldNetwork(
        input_dim=1, width=width, bias=False, activation=activation, init_scale=1.0, key=jax.random.key(0)
    )
    return gn.simulate(gn.Problem(x, np.sin(x[:, 0])), model, flow, stop=gn.RelativeLoss(1.0)).stats["solver"]


@pytest.mark.parametrize(
    ("width", "samples", "flow", "activation", "expected"),
    [
        (2, 5, GradientFlow(), "silu", "exponential_rosenbrock"),
        (2, 4, GradientFlow(), "silu", "exponential"),
        (FEW_WEIGHTS // 2, FEW_WEIGHTS + 1, GradientFlow(), "silu", "exponential_rosenbrock"),
        (FEW_WEIGHTS // 2 + 1, FEW_WEIGHTS + 3, GradientFlow(), "silu", "exponential"),
        (2, 5, GradientFlow(), "relu", "exponential"),
        (2, 5, GaussNewtonFlow(), "silu", "exponential_rosenbrock"),
        (2, 5, GaussNewtonFlow(damping=Constant(0.0)), "silu", "tsit5"),
        (2, 5, GaussNewtonFlow(damping=Constant(0.1), solver=ConjugateGradients()), "silu", "tsit5"),
        (2, 5, SpectralFlow(0.5), "silu", "exponential_rosenbrock"),
        (2, 5, DualGaussNewtonFlow(), "silu", "exponential"),
        (2, 5, Frozen(GradientFlow(), "hidden"), "silu", "exponential_rosenbrock"),
    ],
)
def test_the_whole_jacobian_for_fewer_weights_than_outputs(width, samples, flow, activation, expected):
    """At most `FEW_WEIGHTS`, where the velocity has a derivative."""
    assert few_weights(width, samples, flow, activation) == expected
