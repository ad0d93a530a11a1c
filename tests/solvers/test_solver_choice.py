"""Which solver a run gets, and what it says about it."""

import diffrax
import jax
import numpy as np
import pytest
from facts.recording import make_problem, mean_field

import gnflow as gn
from gnflow.flows import AbstractFlow, GradientFlow
from gnflow.solvers import (
    ExponentialRungeKutta,
    LowRankKvaerno5,
    check_solver,
    choose_solver,
    solver_kinds,
    stages_per_step,
)


def unknown():
    return None


def never():
    raise AssertionError("nobody asked for the stiffness")


@pytest.mark.parametrize(
    ("linearised", "stiffness", "name", "reason"),
    [
        (True, unknown, "exponential", "stiffness"),
        (True, lambda: 1e6, "exponential", "stiffness"),
        (True, lambda: 10.1, "exponential", "stiffness"),
        (True, lambda: 9.9, "tsit5", r"exp\(-9\.9\)"),
        (False, never, "tsit5", "no linearisation"),
    ],
)
def test_what_auto_takes(linearised, stiffness, name, reason):
    choice = choose_solver("auto", linearised, stiffness)
    assert choice.name == name
    assert isinstance(choice.solver, solver_kinds[name])
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(choice.reason)


@pytest.mark.parametrize("name", solver_kinds)
def test_names(name):
    choice = choose_solver(name, True, never)
    assert (choice.name, choice.reason) == (name, "asked for")
    assert type(choice.solver) is solver_kinds[name]
    assert choice.needs_linearisation == (name in ("exponential", "kvaerno5"))
    assert 0 < choice.rtol < 0.1
    assert 0 < choice.min_growth < 1 < choice.max_growth
    # Where stability limits the step there is no trend of the errors to follow.
    assert (choice.anticipation > 0) == choice.needs_linearisation
    # An object is what its name is.
    assert choose_solver(solver_kinds[name](), True, never)._replace(solver=choice.solver) == choice


def test_a_solver_of_diffrax_without_a_name_here():
    choice = choose_solver(diffrax.Heun(), True, never)
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
        choose_solver(solver, True, never)


@pytest.mark.parametrize("solver", ["exponential", "kvaerno5", ExponentialRungeKutta(), LowRankKvaerno5()])
def test_a_flow_without_a_linearisation_is_named(solver):
    with pytest.raises(gn.ConfigError, match=r"linearisation.*tsit5"):
        choose_solver(solver, False, never)


@pytest.mark.parametrize(
    ("solver", "stages"),
    [
        (ExponentialRungeKutta(), 4),
        (diffrax.Tsit5(), 6),
        (diffrax.Dopri5(), 6),
        (diffrax.Bosh3(), 3),
        (diffrax.Heun(), 2),
        (LowRankKvaerno5(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_velocities_in_a_step(solver, stages):
    assert stages_per_step(solver) == stages


class Decay(AbstractFlow):
    """w' = -w: a flow of the user's that is no J^T a."""

    def velocity_and_diagnostics(self, time, weights, system):
        return jax.tree.map(lambda leaf: -leaf, weights), None


def test_runs_say_what_they_took():
    """And why; a run that ends before the fastest mode has decayed takes explicit steps."""
    problem, model = make_problem(), mean_field()
    long = gn.simulate(problem, model, GradientFlow(), stop=gn.RelativeLoss(0.5))
    assert long.stats["solver"] == long.settings["solver"] == "exponential"
    assert "stiffness" in long.stats["solver_reason"]
    short = gn.simulate(problem, model, GradientFlow(), t1=0.1, stop=None)
    assert short.stats["solver"] == "tsit5"
    assert "exp(-" in short.stats["solver_reason"]
    own = gn.simulate(problem, model, Decay(), t1=1.0, stop=None, rtol=1e-8)
    assert own.stats["solver"] == "tsit5"
    assert "no linearisation" in own.stats["solver_reason"]
    np.testing.assert_allclose(own.model.hidden_weight, np.exp(-1) * model.hidden_weight, rtol=1e-6)
    with pytest.raises(gn.ConfigError, match="linearisation"):
        gn.simulate(problem, model, Decay(), t1=1.0, solver="exponential")
