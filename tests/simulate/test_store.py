"""A run as a folder: written whole or not at all, read back the same, and never able to execute anything."""

import dataclasses
import importlib
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from facts.recording import equinox_mlp, make_problem, mean_field, mlp, steps
from simulate.linear import Axes, Linear

import gnflow as gn
from gnflow.flows import Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow, WeightDecay
from gnflow.geometry.damping import Constant, Exponential, Schedule, SmallestEigenvalue
from gnflow.geometry.directions import Cholesky, ConjugateGradients
from gnflow.models import Linearised, RandomFeatures


def same(left, right):
    """Equal arrays of equal types in equal structures."""
    return bool(eqx.tree_equal(left, right, typematch=True))


FILES = {"run.json", "trajectory.nc", "arrays.npz"}


@pytest.fixture(scope="module")
def run():
    """A run of gnflow's own objects, with everything a run can have."""
    problem = gn.problems.teacher_student(4, 6, input_dim=2, teacher_width=3, key=jax.random.key(0))
    flow = GaussNewtonFlow("identity", SmallestEigenvalue(1.0, 1e-7))
    metrics = (gn.metrics.PathLength(), gn.metrics.FullNTKSpectrum())
    return gn.iterate(
        problem, mean_field(num_outputs=1), flow, step_size=0.5, num_steps=3, metrics=metrics, stop=gn.Movement(1e3)
    )


@pytest.fixture
def saved(run, tmp_path):
    run.save(tmp_path / "run")
    return tmp_path / "run"


def test_a_run_comes_back_as_it_was(run, saved):
    back = gn.load(saved)
    xr.testing.assert_identical(back.data, run.data)
    assert isinstance(back, gn.Trajectory)
    for name in ("model", "initial_model", "problem", "flow"):
        assert same(getattr(back, name), getattr(run, name)), name
    assert not same(back.model, back.initial_model)
    assert back.result == run.result
    assert back.stats == run.stats
    assert back.settings == run.settings
    again = gn.iterate(back.problem, back.initial_model, back.flow, step_size=0.5, num_steps=3)
    np.testing.assert_array_equal(again.data.train_loss, run.data.train_loss)


MODELS = {
    "mean field": mean_field,
    "mean field without bias": lambda: gn.models.MeanFieldNetwork(
        2, 5, activation="relu", bias=False, output_scale=3.0, output_exponent=0.5, key=jax.random.key(1)
    ),
    "mlp": mlp,
    "mlp without bias": lambda: mlp(bias=False),
    "random features": lambda: RandomFeatures.of(mean_field()),
    "linearised mean field": lambda: Linearised(mean_field()),
    "linearised mlp": lambda: Linearised(mlp()),
    "linearised random features": lambda: Linearised(RandomFeatures.of(mean_field())),
}


def moved(model):
    return jax.tree.map(lambda leaf: leaf + 1 if eqx.is_inexact_array(leaf) else leaf, model)


def as_run_of(run, model, problem=None):
    """A trajectory like `run`, as if `model` had moved by one in every weight, with the losses that it has."""
    problem = problem or make_problem(num_outputs=max(1, jnp.size(model(jnp.zeros(2)))))
    after = moved(model)

    def loss(network):
        outputs = jax.vmap(network)(problem.x_train)
        return float(problem.loss.value(outputs.reshape(problem.y_train.shape), problem.y_train))

    losses = np.linspace(loss(model), loss(after), run.data.sizes["step"])
    data = run.data.assign(train_loss=("step", losses))
    return dataclasses.replace(run, data=data, initial_model=model, model=after, problem=problem, flow=GradientFlow())


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_gnflow(run, name, tmp_path):
    model = MODELS[name]()
    as_run_of(run, model).save(tmp_path / "run")
    back = gn.load(tmp_path / "run")
    assert same(back.initial_model, model)
    assert same(back.model, moved(model))
    x = jnp.asarray([0.3, -0.7])
    np.testing.assert_array_equal(back.initial_model(x), model(x))
    assert jax.tree.structure(back.model) == jax.tree.structure(model)


@pytest.mark.parametrize(
    "flow",
    [
        GradientFlow(),
        GradientFlow(2.5),
        SpectralFlow(0.25, Constant(0.5)),
        Frozen(GaussNewtonFlow("fisher", Exponential(1.0, 2.0, 3.0), Cholesky()), ("output", "hidden_bias")),
        GaussNewtonFlow("hessian", Constant(0.1), ConjugateGradients(max_steps=7)),
        WeightDecay(Frozen(GradientFlow(), "hidden"), {"hidden_weight": 0.5}),
    ],
    ids=lambda flow: type(flow).__name__,
)
def test_every_flow(run, flow, tmp_path):
    dataclasses.replace(run, flow=flow).save(tmp_path / "run")
    assert gn.load(tmp_path / "run").flow == flow


def test_every_loss(run, tmp_path):
    for index, loss in enumerate((gn.losses.SoftmaxCrossEntropy(), gn.losses.HuberLoss(0.3))):
        problem = make_problem(loss=loss)
        as_run_of(run, mean_field(), problem).save(tmp_path / str(index))
        assert same(gn.load(tmp_path / str(index)).problem, problem)


@pytest.mark.parametrize(
    ("model", "other"),
    [(equinox_mlp(), equinox_mlp(5)), (Linear.at([1.0, 2.0]), Linear.at([0.0, 0.0])), (Linearised(equinox_mlp()),) * 2],
    ids=["equinox", "own class", "linearised"],
)
def test_a_model_of_the_users_is_filled_into_one_that_is_given(run, model, other, tmp_path):
    as_run_of(run, model).save(tmp_path / "run")
    back = gn.load(tmp_path / "run", model=other)
    assert same(back.initial_model, model)
    assert same(back.model, moved(model))
    with pytest.raises(gn.RunFolderError, match=r"a model of .*; pass it: gnflow\.load\(folder, model=model\)"):
        gn.load(tmp_path / "run")


class Pair(eqx.Module):
    """Two weights that can be confused."""

    first: jax.Array
    second: jax.Array
    scale: float = 1.0

    def __call__(self, x):
        return self.scale * (x @ self.first + 2.0 * (x**2) @ self.second)


def module(name, call=Pair.__call__, scale=1.0, **fields):
    """A module with these fields, in this order."""
    return type(name, (eqx.Module,), {"__annotations__": fields, "__call__": call, "scale": scale})


Reordered = module("Pair", second=jax.Array, first=jax.Array)
Fewer = module("Pair", lambda self, x: x @ self.first, first=jax.Array)
Another = module("Another", first=jax.Array, second=jax.Array)
ONES, TWOS = jnp.ones(2), jnp.full(2, 2.0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            Reordered(second=TWOS, first=ONES),
            r"has \.second \(2,\) float64 where the one saved has \.first \(2,\) float64",
        ),
        (Fewer(ONES), "has 1 arrays, the one saved has 2"),
        (Another(ONES, TWOS), "is a Another, the one saved is a .*Pair"),
        ("a string", "is a str, the one saved is a .*Pair"),
        (Pair(jnp.ones(3), TWOS), r"\.first \(3,\) float64 where"),
        (Pair(jnp.ones(2, dtype=jnp.float32), TWOS), r"\.first \(2,\) float32 where"),
        (Pair(ONES, TWOS, scale=3.0), r"training loss .* and the run recorded .*no array, is not what it was"),
    ],
    ids=["reordered fields", "fewer leaves", "another class", "a string", "another shape", "float32", "another number"],
)
def test_a_model_that_is_not_the_one_saved_is_refused(run, other, message, tmp_path):
    as_run_of(run, Pair(ONES, TWOS)).save(tmp_path / "run")
    with pytest.raises(gn.RunFolderError, match=message):
        gn.load(tmp_path / "run", model=other)
    assert same(gn.load(tmp_path / "run", model=Pair(TWOS, TWOS)).initial_model, Pair(ONES, TWOS))


def test_a_flow_or_problem_with_parts_of_the_users(run, tmp_path):
    flow = GaussNewtonFlow("identity", Schedule(lambda t: 1 / (1 + t)))
    problem = dataclasses.replace(run).problem
    with_teacher = gn.Problem(problem.x_train, problem.y_train, teacher=Linear.at([1.0, 2.0]))
    dataclasses.replace(run, flow=flow, problem=with_teacher).save(tmp_path / "run")
    for given in ({}, {"flow": flow}, {"problem": with_teacher}):
        missing = ", ".join(f"{name}={name}" for name in ("problem", "flow") if name not in given)
        with pytest.raises(gn.RunFolderError, match=rf"pass it: gnflow\.load\(folder, {missing}\)"):
            gn.load(tmp_path / "run", **given)
    back = gn.load(tmp_path / "run", flow=flow, problem=with_teacher)
    for given, place in (
        ({"flow": GaussNewtonFlow("hessian", Schedule(lambda t: 1 / (1 + t)))}, r"flow\.metric"),
        ({"flow": GradientFlow()}, "differ in flow"),
        (
            {"problem": gn.Problem(problem.x_train, 2 * problem.y_train, teacher=Linear.at([1.0, 2.0]))},
            "problem.y_train",
        ),
    ):
        with pytest.raises(gn.RunFolderError, match=place):
            gn.load(tmp_path / "run", **{"flow": flow, "problem": with_teacher, **given})
    assert back.flow is flow
    assert back.problem is with_teacher


def test_what_is_given_without_need_must_be_like_the_saved_one(run, saved):
    back = gn.load(saved, model=moved(run.initial_model), flow=run.flow, problem=run.problem)
    assert same(back.initial_model, run.initial_model)  # the arrays are the saved ones
    other = mean_field(num_outputs=1, activation="relu")
    doubled = gn.Problem(run.problem.x_train, 2 * run.problem.y_train, teacher=run.problem.teacher)
    for given, message in (
        (
            {"model": mean_field(num_outputs=3)},
            "the initial model given has other sizes or settings than the one saved",
        ),
        ({"model": other}, "has other sizes or settings"),
        ({"flow": GaussNewtonFlow("identity", SmallestEigenvalue(2.0, 1e-7))}, r"they differ in flow\.damping\.factor"),
        ({"problem": doubled}, r"they differ in problem\.y_train"),
    ):
        with pytest.raises(gn.RunFolderError, match=message):
            gn.load(saved, **given)


def test_a_metric_of_the_users_does_not_stand_in_the_way(tmp_path):
    """Its values are in the data; the settings keep its text."""
    run = steps(make_problem(), mean_field(), GradientFlow(), 0.1, 2)
    run.save(tmp_path / "run")
    back = gn.load(tmp_path / "run")
    xr.testing.assert_identical(back.data, run.data)
    assert back.settings["metrics"] == ("State()", gn.metrics.PathLength())


def test_the_files_are_of_open_formats_without_pickle(saved):
    assert {path.name for path in saved.iterdir()} == FILES
    record = json.loads((saved / "run.json").read_text())
    assert {"gnflow", "jax", "diffrax", "numpy", "python"} <= set(record["versions"])
    with np.load(saved / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
        assert arrays["model.hidden_weight"].shape == (8, 2)
    assert not list(saved.parent.glob(".*"))  # nothing is left of the draft


def test_nothing_is_overwritten(run, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a run that cannot be written is kept
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(gn.RunFolderError, match="already holds a run"):
        run.save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("precious")
    with pytest.raises(gn.RunFolderError, match="other files"):
        run.save(tmp_path / "notes")
    (tmp_path / "file").write_text("precious")
    for target in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(gn.RunFolderError):
            run.save(target)
    assert (tmp_path / "file").read_text() == "precious"


def test_an_empty_folder_and_missing_parents_will_do(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        run.save(str(target))
        assert gn.load(str(target)).result == run.result


def test_a_run_that_cannot_be_written_leaves_nothing(run, tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(gn.RunFolderError, match="No space left"):
        run.save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_be_written_is_kept_elsewhere(run, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(gn.RunFolderError, match=r"cannot be written to .*file.*It is kept in (\S+);") as caught:
        run.save(tmp_path / "file" / "run")
    (kept,) = (tmp_path / "here").glob("gnflow-rescued-*/run")
    assert str(kept) in str(caught.value)
    assert gn.load(kept).result == run.result


def test_a_tilde_is_the_home_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run.save("~/kept/run")
    assert (tmp_path / "kept" / "run" / "run.json").is_file()
    assert gn.load("~/kept/run").result == run.result
    for name in ("a\0b", "", "n" * 300, "~nobody-of-this-name/run"):
        with pytest.raises(gn.RunFolderError, match="folder = "):
            run.save(name)


def test_attributes_of_any_kind_come_back(run, tmp_path):
    attrs = {
        "none": None,
        "yes": True,
        "nested": {"a": [1, {"b": None}], "c": "text"},
        "texts": ["a", "b"],
        "empty": [],
        "path": Path("/somewhere/else"),
        "number": 3,
        "numbers": np.arange(3.0),
        "large": 2**70,
        "text": "plain",
        "nul": "a\0b",
    }
    data = run.data.assign_attrs(attrs)
    data["train_loss"].attrs["flag"] = False
    dataclasses.replace(run, data=data).save(tmp_path / "run")
    back = gn.load(tmp_path / "run").data
    np.testing.assert_array_equal(back.attrs.pop("numbers"), attrs.pop("numbers"))
    assert back.attrs == {**attrs, "path": "/somewhere/else"}
    assert back["train_loss"].attrs["flag"] is False
    assert "flag" in data["train_loss"].attrs  # saving changes nothing


def test_no_run(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(gn.RunFolderError, match="no run"):
            gn.load(folder)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage"])
def test_a_damaged_run_says_so(saved, name, damage):
    path = saved / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"empty": b"", "truncated": content[: len(content) // 2], "garbage": b"\x80\x04garbage"}[damage]
        )
    with pytest.raises(gn.RunFolderError, match="no run" if (name, damage) == ("run.json", "missing") else "damaged"):
        gn.load(saved)


def edited(folder, change):
    record = json.loads((folder / "run.json").read_text())
    change(record)
    (folder / "run.json").write_text(json.dumps(record))


def test_arrays_that_are_missing(saved):
    with np.load(saved / "arrays.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "model.output_weight"}
    np.savez(saved / "arrays.npz", **arrays)
    with pytest.raises(gn.RunFolderError, match=r"model\.output_weight.*damaged"):
        gn.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("result"),
        lambda record: record["result"].update(code="unheard of"),
        lambda record: record.update(objects=[]),
        lambda record: record["objects"]["model"].pop("hidden_weight"),
        lambda record: record.pop("format"),
    ],
    ids=["no result", "unknown code", "no objects", "no field", "no format"],
)
def test_a_record_without_its_parts(saved, change):
    edited(saved, change)
    with pytest.raises(gn.RunFolderError, match="damaged"):
        gn.load(saved)


def test_a_record_that_is_no_object(saved):
    (saved / "run.json").write_text("[1, 2]")
    with pytest.raises(gn.RunFolderError, match="damaged"):
        gn.load(saved)


def test_another_format_is_refused(saved):
    edited(saved, lambda record: record.update(format=99))
    with pytest.raises(gn.RunFolderError, match="format 99"):
        gn.load(saved)


@pytest.mark.parametrize(
    "name",
    [
        "subprocess:Popen",
        "gnflow.__main__:X",
        "gnflowers.models:MeanFieldNetwork",
        "gnflow.models._mean_field:NoSuchNetwork",
        "gnflow.simulate._store:shutil",
        "gnflow.simulate._trajectory:Trajectory",
        7,
        None,
        ["a"],
    ],
)
def test_classes_that_are_not_listed_are_never_imported(saved, name, monkeypatch):
    def imported(*_):
        raise AssertionError("a file had something imported")

    monkeypatch.setattr(importlib, "import_module", imported)
    edited(saved, lambda record: record["objects"]["model"].update(__class__=name))
    with pytest.raises(gn.RunFolderError, match="which is none that this version of gnflow reads back"):
        gn.load(saved)


def test_a_failed_run_can_be_saved(tmp_path):
    flow, axes = GradientFlow(1.0), Axes(targets=(0.0, 5.0))
    with pytest.raises(gn.SimulationError) as caught:
        gn.iterate(axes.problem, Linear.at([0.0, 0.0]), flow, step_size=2e60, num_steps=10)
    caught.value.trajectory.save(tmp_path / "run")
    back = gn.load(tmp_path / "run", model=Linear.at([0.0, 0.0]))
    assert back.result.failed
    xr.testing.assert_identical(back.data, caught.value.trajectory.data)


def test_a_field_that_this_version_does_not_know_is_refused(saved):
    def change(record):
        record["objects"]["flow"]["momentum"] = 0.9
        record["versions"]["gnflow"] = "9.9"

    edited(saved, change)
    with pytest.raises(gn.RunFolderError, match=r"GaussNewtonFlow a field 'momentum'.*written with gnflow 9\.9"):
        gn.load(saved)


def test_a_field_with_a_default_may_be_missing(saved):
    edited(saved, lambda record: record["objects"]["flow"].pop("solver"))
    assert gn.load(saved).flow == GaussNewtonFlow("identity", SmallestEigenvalue(1.0, 1e-7))


def test_a_part_that_this_version_does_not_know_is_refused(saved):
    edited(saved, lambda record: record.update(constraints=[]))
    with pytest.raises(gn.RunFolderError, match="with 'constraints', which this gnflow does not read"):
        gn.load(saved)


def test_the_first_loss_of_a_failed_run_is_compared_too(tmp_path):
    flow, axes = GradientFlow(1.0), Axes(targets=(0.0, 5.0))
    with pytest.raises(gn.SimulationError) as caught:
        gn.iterate(axes.problem, Pair(ONES, TWOS), flow, step_size=2e60, num_steps=10)
    caught.value.trajectory.save(tmp_path / "run")
    with pytest.raises(gn.RunFolderError, match=r"the initial model has the training loss 81\.25"):
        gn.load(tmp_path / "run", model=Pair(ONES, TWOS, scale=3.0))


def test_values_are_stored_as_they_are(run, tmp_path):
    """Whatever attributes and encodings would make of them in another reader."""
    data = run.data.assign_attrs(NAME="x", odd={(1, 2): 3}, code=run.result.code)
    data["train_loss"].attrs["scale_factor"] = 2.0
    data["train_loss"].encoding = {"dtype": "int16", "scale_factor": 0.1}
    dataclasses.replace(run, data=data).save(tmp_path / "run")
    back = gn.load(tmp_path / "run").data
    np.testing.assert_array_equal(back.train_loss, run.data.train_loss)
    assert back.train_loss.attrs["scale_factor"] == 2.0
    assert back.attrs == {"NAME": "x", "odd": "{(1, 2): 3}", "code": str(run.result.code)}


@pytest.mark.parametrize(
    "change",
    [lambda data: data.assign(c=("step", np.ones(4) * 1j)), lambda data: data.isel(step=slice(None, None, -1))],
    ids=["complex", "backwards"],
)
def test_what_could_not_be_read_is_not_written(run, change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gn.RunFolderError, match=r"take that out of trajectory\.data"):
        dataclasses.replace(run, data=change(run.data)).save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_an_empty_folder_will_do(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    run.save(tmp_path / "link")
    assert gn.load(tmp_path / "empty").result == run.result


def test_what_is_given_for_nothing_is_refused(run, saved):
    for given in ({"model": Pair(ONES, TWOS)}, {"flow": GradientFlow()}):
        with pytest.raises(gn.RunFolderError, match="leave it out"):
            gn.load(saved, **given)
    assert gn.load(saved, model=run.model).result == run.result


class OwnLoss(gn.losses.SquaredLoss):
    """A user's, with a number."""

    weight: float = 1.0


def test_a_problem_of_a_users_loss_is_compared_by_its_numbers(run, tmp_path):
    problem = gn.Problem(run.problem.x_train, run.problem.y_train, loss=OwnLoss(2.0))
    dataclasses.replace(run, problem=problem).save(tmp_path / "run")
    assert gn.load(tmp_path / "run", problem=problem).problem is problem
    other = gn.Problem(run.problem.x_train, run.problem.y_train, loss=OwnLoss(5.0))
    with pytest.raises(gn.RunFolderError, match=r"differ in problem\.loss\.weight"):
        gn.load(tmp_path / "run", problem=other)


@pytest.mark.parametrize(
    "change",
    [
        {"problem.x_train": np.zeros((5, 2))},
        {"problem.y_train": np.zeros((1, 1))},
        {"problem.x_test": np.zeros((6, 5))},
        {"problem.x_train": np.full((4, 2), np.nan)},
        {"problem.x_train": np.zeros((0, 2)), "problem.y_train": np.zeros((0, 1))},
    ],
    ids=["rows", "one target", "columns", "nan", "no samples"],
)
def test_data_that_do_not_fit_are_refused(saved, change):
    with np.load(saved / "arrays.npz") as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(saved / "arrays.npz", **{**arrays, **change})
    with pytest.raises(gn.RunFolderError, match=r"damaged"):
        gn.load(saved)


def test_a_run_is_not_called_damaged_where_jax_runs_in_float32(saved):
    with jax.enable_x64(False), pytest.raises(gn.PrecisionError, match="load needs float64"):
        gn.load(saved)
