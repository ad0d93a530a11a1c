"""Runs that keep where they stand, and go on from there."""

import json
import shutil

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest

import gnflow as gn
from gnflow.flows import GaussNewtonFlow, GradientFlow
from gnflow.simulate import _accuracy, _checkpoint, _integrate
from gnflow.simulate._checkpoint import as_arrays, from_arrays, identity_of
from gnflow.simulate._integrate import Loop
from gnflow.solvers import _choice

KEY = jax.random.key(1)


def a_problem():
    return gn.problems.teacher_student(8, 5, input_dim=2, teacher_width=2, key=KEY)


def a_model(width=20):
    return gn.models.MeanFieldNetwork(input_dim=2, width=width, key=KEY)


def a_run(folder=None, model=None, flow=None, **options):
    options = {"stop": gn.RelativeLoss(1e-4), "metrics": (gn.metrics.PathLength(),)} | options
    return gn.simulate(a_problem(), model or a_model(), flow or GradientFlow(), checkpoint=folder, **options)


@pytest.fixture
def segments(monkeypatch):
    """Of one step each; counted."""
    monkeypatch.setattr(_integrate, "_FIRST_STEPS", 1)
    monkeypatch.setattr(_integrate, "_MOST_STEPS", 1)
    taken, advance = [], Loop.advance

    def counted(loop):
        taken.append(loop)
        if len(taken) == taken_at_most[0]:
            raise error[0]
        advance(loop)

    taken_at_most, error = [None], [KeyboardInterrupt()]
    monkeypatch.setattr(Loop, "advance", counted)

    class Segments:
        @property
        def number(self):
            return len(taken)

        @staticmethod
        def end_at(number, by):
            taken.clear()
            taken_at_most[0], error[0] = number, by

    return Segments()


def assert_equal(one, other):
    """To the last bit, but for the time that they took."""
    for name, values in one.data.items():
        np.testing.assert_array_equal(values, other.data[name])
    apart = ("wall_seconds", "compile_seconds")
    assert {k: v for k, v in one.stats.items() if k not in apart} == {
        k: v for k, v in other.stats.items() if k not in apart
    }
    assert one.result == other.result
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), one.model, other.model))


@pytest.mark.parametrize(
    "solver", ["stabilised", *(pytest.param(name, marks=pytest.mark.slow) for name in ("exponential", "tsit5"))]
)
def test_an_interrupted_run_goes_on_to_the_same_result(solver, tmp_path, segments):
    whole = a_run(solver=solver)
    number = segments.number
    segments.end_at(number // 2, KeyboardInterrupt())
    with pytest.raises(gn.RunInterrupted):
        a_run(tmp_path / "kept", solver=solver)
    segments.end_at(None, None)
    resumed = a_run(tmp_path / "kept", solver=solver)
    assert segments.number == number - number // 2 + 1
    assert_equal(resumed, whole)
    # Of one that had ended nothing is left.
    segments.end_at(None, None)
    assert_equal(a_run(tmp_path / "kept", solver=solver), whole)
    assert segments.number == 0


def test_a_process_that_dies_loses_what_was_not_kept_yet(tmp_path, segments, monkeypatch):
    whole = a_run()
    number = segments.number
    segments.end_at(5, SystemExit())
    with pytest.raises(SystemExit):
        a_run(tmp_path / "kept")
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["run.json"]
    monkeypatch.setattr(_checkpoint, "_SECONDS", 0.0)
    segments.end_at(5, SystemExit())
    with pytest.raises(SystemExit):
        a_run(tmp_path / "kept")
    segments.end_at(None, None)
    assert_equal(a_run(tmp_path / "kept"), whole)
    assert segments.number == number - 4


def test_over_a_change_of_the_solver(tmp_path, segments, monkeypatch):
    for name in ("_FEW_VELOCITIES", "_FEW_OPERATIONS", "_WORTH_COMPILING", "_HEAVY_VELOCITY"):
        monkeypatch.setattr(_choice, name, 0.0)
    whole = a_run()
    assert whole.stats["solver"] == "tsit5, then stabilised, then exponential"
    last = segments.number - 2
    segments.end_at(last, KeyboardInterrupt())
    with pytest.raises(gn.RunInterrupted) as stopped:
        a_run(tmp_path / "kept")
    assert stopped.value.trajectory.stats["solver"] == whole.stats["solver"]
    segments.end_at(None, None)
    assert_equal(a_run(tmp_path / "kept"), whole)
    assert segments.number == 3


@pytest.mark.slow
def test_finished_solutions_are_not_made_anew(tmp_path, segments, monkeypatch):
    """Of a run that takes two, because no estimate is believed."""
    monkeypatch.setattr(_accuracy, "_BELIEVED", 1e-9)
    options = {"solver": "exponential", "rtol": 1e-2, "flow": GaussNewtonFlow()}
    whole = a_run(**options, throw=False)
    assert whole.stats["num_solutions"] == 2
    number = segments.number
    segments.end_at(number - 1, KeyboardInterrupt())
    with pytest.raises(gn.RunInterrupted):
        a_run(tmp_path / "kept", **options)
    segments.end_at(None, None)
    assert_equal(a_run(tmp_path / "kept", **options, throw=False), whole)
    assert segments.number == 2


@pytest.mark.parametrize(
    ("other", "part"),
    [
        ({"model": a_model(21)}, "model"),
        ({"flow": GradientFlow(mobility=2.0)}, "flow"),
        ({"solver": "tsit5"}, "settings"),
        ({"stop": gn.RelativeLoss(1e-5)}, "settings"),
        ({"saveat": [1.0]}, "settings"),
    ],
)
def test_another_run_is_refused_before_it_begins(other, part, tmp_path, segments):
    a_run(tmp_path / "kept")
    segments.end_at(None, None)
    with pytest.raises(gn.RunFolderError, match=f"another run, with another {part}; name another folder"):
        a_run(tmp_path / "kept", **other)
    assert segments.number == 0


class Limit(gn.AbstractStopRule):
    """A rule of the user's, with a number that JAX does not see among its arrays."""

    limit: float

    def margin(self, snapshot, memory):
        return snapshot.train_loss - self.limit

    def describe(self):
        return "the loss reached the limit"


def test_what_makes_two_runs_the_same():
    """Classes of the user's, their numbers, functions, keys and solvers of Diffrax are told apart; addresses are not seen."""
    things = [
        *(Limit(1.0), Limit(2.0), jax.nn.relu, jax.nn.tanh, jax.random.key(0), jax.random.key(1)),
        *(diffrax.Tsit5(), diffrax.Dopri5(), {"a": 1}, {"a": 2}, (1.0,), np.float64(1.0), np.float32(1.0), None),
        *(eqx.nn.MLP(1, 1, 2, 1, key=KEY), eqx.nn.MLP(1, 1, 2, 2, key=KEY)),
    ]
    digests = [identity_of(thing=thing)["thing"] for thing in things]
    assert len(set(digests)) == len(things)
    assert identity_of(thing=Limit(1.0))["thing"] == digests[0]
    assert identity_of(thing=eqx.nn.MLP(1, 1, 2, 1, key=KEY))["thing"] == digests[-2]


def test_folders_that_hold_something_else(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "run.json").write_text(json.dumps([1]))
    for name in ("file", "other"):
        with pytest.raises(gn.RunFolderError, match="name one that is not there yet"):
            a_run(tmp_path / name)
    with pytest.raises(gn.RunFolderError, match="another run"):
        a_run(tmp_path / "list")


@pytest.mark.parametrize("damage", ["cut", "text", "shape"])
def test_a_damaged_file_is_named(damage, tmp_path):
    a_run(tmp_path)
    file = tmp_path / "solution_1.npz"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "text":
        file.write_text("nothing")
    else:
        with np.load(file) as stored:
            arrays = dict(stored)
        arrays["segment.1"] = np.zeros(3)
        np.savez(file, **arrays)
    with pytest.raises(gn.RunFolderError, match=r"remove"):
        a_run(tmp_path)


def test_leaves_keep_their_types():
    """A weak one among them: another type would be another program."""
    tree = {"weak": jax.numpy.asarray(2.0), "strong": jax.numpy.zeros(()), "bool": jax.numpy.asarray(True)}
    again = from_arrays(tree, as_arrays(tree, "x"), "x")
    for one, other in zip(jax.tree.leaves(tree), jax.tree.leaves(again), strict=True):
        assert (one.dtype, one.weak_type) == (other.dtype, other.weak_type)
        assert one == other


def test_a_folder_that_another_process_removed_is_made_again(tmp_path, monkeypatch, segments):
    monkeypatch.setattr(_checkpoint, "_SECONDS", 0.0)
    folder, written = tmp_path / "unfinished", []
    write = _checkpoint.write_whole

    def removed_before(file, content):
        write(file, content)
        written.append(sorted(path.name for path in folder.iterdir()))
        shutil.rmtree(folder)

    monkeypatch.setattr(_checkpoint, "write_whole", removed_before)
    run = a_run(folder)
    assert run.result.code == "stop_rule_met"
    assert len(written) > 2
    assert all(names == ["run.json", "solution_1.npz"] for names in written if "solution_2.npz" not in names)
