"""What is compiled when, that runs repeat bit by bit, and that watching a run does not change it."""

import jax
import numpy as np
import pytest
from facts.recording import make_problem, mean_field
from simulate.linear import Axes, Linear, flow_down

import gnflow as gn
from gnflow.flows import GaussNewtonFlow
from gnflow.geometry.damping import SmallestEigenvalue


@pytest.fixture
def compilations():
    """The compilations since the test began, as a growing list."""
    events = []

    def listen(event, _, **__):
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def default_run(seed=0, floor=1e-7, **numbers):
    flow = GaussNewtonFlow("identity", SmallestEigenvalue(factor=1.0, floor=floor))
    return gn.simulate(make_problem(seed), mean_field(seed), flow, **numbers)


@pytest.mark.parametrize(
    "numbers",
    [
        {"floor": 0.5},
        {"floor": np.float64(0.25)},
        {"rtol": 2e-3},  # below 1e-4 "auto" takes another solver
        {"rtol": np.float64(2e-3), "atol": 1e-12},
        {"stop": gn.RelativeLoss(1e-3)},
        {"stop": gn.RelativeLoss(np.float64(1e-3))},
        {"t1": 2.0},
        {"t1": np.float64(2.0)},
        {"seed": 1},
    ],
    ids=str,
)
def test_other_numbers_are_not_another_program(compilations, numbers):
    first = default_run()
    del compilations[:]
    second = default_run(**numbers)
    assert compilations == []
    assert float(second.data.train_loss[-1]) != float(first.data.train_loss[-1])


def test_another_shape_is(compilations):
    """The counter counts."""
    default_run()
    del compilations[:]
    gn.iterate(Axes().problem, Linear.at([0.0, 0.0]), gn.flows.GradientFlow(3.0), step_size=0.1, num_steps=1)
    jax.jit(lambda x: x + 1)(np.zeros(11))
    assert len(compilations) > 0


def test_other_numbers_of_a_discrete_method_are_not_another_program(compilations):
    def run(step_size, num_steps, save_every, floor):
        flow = GaussNewtonFlow("identity", SmallestEigenvalue(factor=1.0, floor=floor))
        return gn.iterate(
            make_problem(), mean_field(), flow, step_size=step_size, num_steps=num_steps, save_every=save_every
        )

    run(0.5, 3, 1, 1e-7)
    del compilations[:]
    run(0.25, 7, 2, 1e-3)
    run(1.0, 4, 4, 1e-3)
    assert compilations == []


def test_other_numbers_and_batches_are_not_another_program(compilations):
    def run(learning_rate, num_steps, key):
        problem, model, adam = Axes().problem, Linear.at([0.0, 0.0]), gn.optimisers.Adam(learning_rate)
        options = {"num_steps": num_steps, "save_every": 3, "batch_size": 1, "key": key}
        return gn.iterate(problem, model, gn.flows.GradientFlow(1.0), optimiser=adam, **options)

    run(0.1, 3, 0)
    del compilations[:]
    assert run(np.float64(0.2), 8, 1).data.step.values.tolist() == [0, 3, 6, 8]
    assert compilations == []


def test_runs_repeat_bit_by_bit():
    first, second = default_run(), default_run()
    assert first.result == second.result
    for name in ("time", *first.data.data_vars):
        np.testing.assert_array_equal(first.data[name], second.data[name])
    for name in ("hidden_weight", "hidden_bias", "output_weight"):
        np.testing.assert_array_equal(getattr(first.model, name), getattr(second.model, name))


def test_a_progress_bar_shows_decades_and_changes_nothing(capsys):
    silent, shown = (flow_down(Axes(), progress=progress) for progress in (False, True))
    text = capsys.readouterr().err
    assert "decades" in text
    assert "/8.0 decades" in text
    assert "flow time" in text
    np.testing.assert_array_equal(shown.data.time, silent.data.time)
    np.testing.assert_array_equal(shown.data.train_loss, silent.data.train_loss)
    np.testing.assert_array_equal(shown.model.w, silent.model.w)
    assert shown.stats["num_steps"] == silent.stats["num_steps"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"t1": 3.0}, {"stop": gn.RelativeLoss(1e-3), "solver": "tsit5"}], ids=str)
def test_the_bar_ends_where_the_run_does(options, capsys):
    """With the numbers of the run's own end, as the command line's table has them, not those of a step past it."""
    run = flow_down(Axes(scales=(1.0, 3.0)), progress=True, **options)
    last = capsys.readouterr().err.replace("\r", "\n").rstrip().splitlines()[-1]
    end = float(run.data.time[-1]), float(run.data.train_loss[-1])
    assert f"loss {end[1]:.3e} " in last
    assert f"flow time {end[0]:.4g}, {run.stats['num_steps']} steps" in last


def test_a_bar_of_steps(capsys):
    gn.iterate(
        Axes().problem,
        Linear.at([0.0, 0.0]),
        gn.flows.GradientFlow(1.0),
        step_size=1.0,
        num_steps=10,
        progress=True,
    )
    text = capsys.readouterr().err
    assert "decades" in text
    assert "10 steps" in text
    assert "6.0 decades" in text  # log10 of 4^10


def test_without_progress_nothing_is_printed(capsys):
    default_run()
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_the_bar_says_that_it_compiles_and_its_clock_runs(capsys):
    """A shape of its own, so that there is something to compile."""
    problem, model = gn.Problem(np.eye(7), np.arange(7.0)), Linear.at(np.zeros(7))
    trajectory = gn.simulate(problem, model, gn.flows.GaussNewtonFlow(), progress=True)
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    compiling = [line for line in lines if line.startswith("compiling")]
    assert len({line.rpartition("[")[2] for line in compiling}) > 1
    assert lines[-1].startswith("loss") or lines[-1] == ""
    assert 0 < trajectory.stats["compile_seconds"] <= trajectory.stats["wall_seconds"]
    again = gn.simulate(problem, model, gn.flows.GaussNewtonFlow())
    assert again.stats["compile_seconds"] < 0.1 * trajectory.stats["compile_seconds"]


def test_a_run_that_is_over_at_its_start_leaves_no_bar(capsys):
    axes = Axes()
    gn.simulate(axes.problem, Linear.at(axes.targets), gn.flows.GradientFlow(1.0), progress=True)
    assert capsys.readouterr().err.replace("\r", "\n").split("\n")[-1].strip() == ""
