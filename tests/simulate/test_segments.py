"""The loop over compiled segments: what comes out does not depend on it, and it can be interrupted and stored."""

import importlib
import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import numpy as np
import pytest
from facts.interrupting import interrupt_after
from facts.recording import make_problem, mean_field
from simulate.linear import Axes, Linear, flow_down

import gnflow as gn
from gnflow.simulate import simulate_once

loop = importlib.import_module("gnflow.simulate._integrate")
programs = importlib.import_module("gnflow.simulate._segments")
UNDAMPED = gn.flows.GaussNewtonFlow(metric="hessian", damping=gn.damping.Constant(0.0))


def run(**settings):
    settings = {"stop": (gn.RelativeLoss(1e-3), gn.Movement(10.0)), **settings}
    return gn.simulate(make_problem(), mean_field(1), settings.pop("flow", gn.flows.GradientFlow()), **settings)


@pytest.fixture
def one_step_at_a_time(monkeypatch):
    monkeypatch.setattr(loop, "_FIRST_STEPS", 1)
    monkeypatch.setattr(loop, "_MOST_STEPS", 1)


@pytest.mark.parametrize(
    "solver",
    ["exponential", "stabilised", "tsit5", *(pytest.param(s, marks=pytest.mark.slow) for s in ("kvaerno5", "dopri8"))],
)
def test_nothing_depends_on_the_length_of_segments(solver, request):
    settings = {"solver": solver, "metrics": (gn.metrics.PathLength(),)}
    whole = run(**settings)
    request.getfixturevalue("one_step_at_a_time")
    parts = run(**settings)
    assert parts.result == whole.result
    assert parts.stats["num_steps"] == whole.stats["num_steps"]
    assert parts.stats["estimated_error"] == whole.stats["estimated_error"]
    for name in ("time", *whole.data.data_vars):
        np.testing.assert_array_equal(parts.data[name], whole.data[name], err_msg=name)


@pytest.mark.slow
def test_rejected_steps_at_the_end_of_a_segment(one_step_at_a_time):
    """The next step's length is kept, too, where a segment ends with a step that was rejected."""
    parts = flow_down(Axes(scales=(1.0, 30.0)), solver="tsit5", t1=10.0, stop=None)
    assert parts.stats["num_rejected_steps"] > 0
    np.testing.assert_allclose(parts.data.train_loss[-1], Axes(scales=(1.0, 30.0)).loss(10.0), rtol=0.02)


@pytest.mark.parametrize("segments", [0, 3, 12])
def test_an_interrupted_run_keeps_what_it_came_to(segments, monkeypatch, one_step_at_a_time):
    whole = run(solver="tsit5")
    interrupt_after(monkeypatch, loop, segments)
    with pytest.raises(gn.RunInterrupted) as stopped:
        run(solver="tsit5", throw=False)
    trajectory = stopped.value.trajectory
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert trajectory.result.code == gn.ResultCode.INTERRUPTED
    assert trajectory.result.failed
    assert "interrupted" in str(stopped.value)
    assert trajectory.stats["num_steps"] == segments
    inner = trajectory.data.isel(time=slice(0, -1))
    same = whole.data.isel(time=slice(0, inner.sizes["time"]))
    np.testing.assert_array_equal(inner.time, same.time)
    np.testing.assert_array_equal(inner.train_loss, same.train_loss)
    assert trajectory.data.time[-1] == trajectory.result.time
    system = gn.System(trajectory.problem, trajectory.model)
    loss = system.train_loss(system.weights(trajectory.model))
    np.testing.assert_allclose(trajectory.data.train_loss[-1], loss, rtol=1e-12)


@pytest.mark.slow
def test_a_second_solution_that_is_interrupted_leaves_the_first(monkeypatch):
    settings = {"flow": UNDAMPED, "solver": "tsit5", "rtol": 1e-3}
    whole = run(**settings)
    monkeypatch.setattr(importlib.import_module("gnflow.simulate._accuracy"), "_BELIEVED", 0.0)
    advance, seen = loop.advance, []

    def interrupted(before, args, solver, linearised, controller):
        seen.append(float(controller.rtol))
        if seen[-1] < 1e-3:
            raise KeyboardInterrupt
        return advance(before, args, solver, linearised, controller)

    monkeypatch.setattr(loop, "advance", interrupted)
    with pytest.raises(gn.RunInterrupted, match="before its error was known") as stopped:
        run(**settings)
    np.testing.assert_array_equal(stopped.value.trajectory.data.train_loss, whole.data.train_loss)


ENDLESS = """
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
import gnflow as gn

class Pair(eqx.Module):
    a: jax.Array
    def __call__(self, x):
        return self.a[:1] * x

class Turning(gn.flows.AbstractFlow):
    def velocity_and_diagnostics(self, time, weights, system):
        a = system.model(weights).a
        return system.weights(Pair(jnp.stack([-a[1], a[0]]))), None

problem, model = gn.Problem(np.ones((1, 1)), np.full(1, 9.0)), Pair(jnp.ones(2))
print("begun", flush=True)
try:
    gn.simulate(problem, model, Turning(), t1=1e12, stop=None, max_steps=10**9)
except KeyboardInterrupt as stop:
    print(stop.trajectory.result.code, stop.trajectory.stats["num_steps"] > 0)
"""


@pytest.mark.slow  # a process of its own: pytest's workers keep signals from the thread that runs tests
def test_ctrl_c_is_heard_while_a_run_is_under_way():
    process = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    time.sleep(40)  # it compiles first
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0].split() == ["interrupted", "True"]


def test_an_interrupted_iteration_keeps_what_it_came_to(monkeypatch):
    module = importlib.import_module("gnflow.simulate._full_batch")
    interrupt_after(monkeypatch, module.FullBatch, 3)
    arguments = Axes().problem, Linear.at([0.0, 0.0]), gn.flows.GradientFlow(1.0)
    with pytest.raises(gn.RunInterrupted) as stopped:
        gn.iterate(*arguments, step_size=0.1, num_steps=10)
    trajectory = stopped.value.trajectory
    assert trajectory.result.code == gn.ResultCode.INTERRUPTED
    np.testing.assert_array_equal(trajectory.data.step, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("flow", "solver"),
    [
        (UNDAMPED, "tsit5"),
        pytest.param(gn.flows.SpectralFlow(0.5), "exponential", marks=pytest.mark.slow),
        pytest.param(gn.flows.GradientFlow(), "stabilised", marks=pytest.mark.slow),
        *(
            pytest.param(flow, solver, marks=pytest.mark.slow)
            for flow in (gn.flows.GradientFlow(), gn.flows.DualGaussNewtonFlow(10.0))
            for solver in ("exponential", "kvaerno5", "dopri8", "exponential_rosenbrock")
        ),
    ],
)
def test_no_compiled_program_calls_back(flow, solver, monkeypatch):
    """One that does cannot be stored in a compilation cache, and each process compiles it anew."""
    found = {}
    start = importlib.import_module("gnflow.simulate._start")
    for module, name in (
        *((loop, name) for name in ("begin", "advance", "inside", "margins_inside", "measure")),
        *((start, name) for name in ("remember", "measure", "_first_scales")),
    ):
        program = getattr(module, name)

        def seen(*arguments, program=program, name=name):
            if name not in found:
                found[name] = str(eqx.filter_make_jaxpr(program.__wrapped__)(*arguments)[0])
            return program(*arguments)

        monkeypatch.setattr(module, name, seen)
    problem = gn.Problem(*(getattr(make_problem(), part)[:4] for part in ("x_train", "y_train")))
    model = gn.models.MeanFieldNetwork(
        input_dim=problem.x_train.shape[1], width=8, output_dim=problem.y_train.shape[1], key=jax.random.key(0)
    )
    stop = (gn.RelativeLoss(0.5), gn.LossPlateau())
    gn.simulate(problem, model, flow, stop=stop, solver=solver, metrics=(gn.metrics.PathLength(),), progress=True)
    assert len(found) == 7
    assert [name for name, program in found.items() if "callback" in program] == []


def test_steps_that_end_at_saves_are_as_accurate_there():
    """Along f' = y - f the loss is known: interpolation within long steps errs by more than the steps do."""
    problem, times = make_problem(), np.geomspace(0.01, 4.0, 20)
    errors, steps = {}, {}
    for to_saves in (False, True):
        trajectory = simulate_once(
            problem,
            mean_field(1),
            UNDAMPED,
            solver="dopri8",
            rtol=1e-6,
            t1=4.5,
            stop=None,
            saveat=times,
            steps_to_saves=to_saves,
        )
        losses = trajectory.data.train_loss.to_numpy()
        np.testing.assert_allclose(trajectory.data.time, [0.0, *times, 4.5])
        errors[to_saves] = np.abs(np.log(losses / losses[0]) + 2 * trajectory.data.time.to_numpy()).max()
        steps[to_saves] = trajectory.stats["num_accepted_steps"]
    assert errors[True] < errors[False] / 10
    assert steps[False] <= len(times) < steps[True]
