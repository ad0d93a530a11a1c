"""A run as a folder: written whole or not at all, read back the same, and never able to execute anything."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from facts.recording import equinox_mlp, make_problem, mean_field, mlp, steps
from simulate.linear import Axes, Linear

import gnflow as gn
from gnflow.flows import Frozen, GaussNewtonFlow, GradientFlow, SpectralFlow
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


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_gnflow(run, name, tmp_path):
    model = MODELS[name]()
    dataclasses.replace(run, initial_model=model, model=moved(model)).save(tmp_path / "run")
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
    ],
    ids=lambda flow: type(flow).__name__,
)
def test_every_flow(run, flow, tmp_path):
    dataclasses.replace(run, flow=flow).save(tmp_path / "run")
    assert gn.load(tmp_path / "run").flow == flow


def test_every_loss(run, tmp_path):
    for index, loss in enumerate((gn.losses.SoftmaxCrossEntropy(), gn.losses.HuberLoss(0.3))):
        problem = make_problem(loss=loss)
        dataclasses.replace(run, problem=problem).save(tmp_path / str(index))
        assert same(gn.load(tmp_path / str(index)).problem, problem)


@pytest.mark.parametrize(
    ("model", "other"),
    [(equinox_mlp(), equinox_mlp(5)), (Linear.at([1.0, 2.0]), Linear.at([0.0, 0.0])), (Linearised(equinox_mlp()),) * 2],
    ids=["equinox", "own class", "linearised"],
)
def test_a_model_of_the_users_is_filled_into_one_that_is_given(run, model, other, tmp_path):
    dataclasses.replace(run, initial_model=model, model=moved(model)).save(tmp_path / "run")
    back = gn.load(tmp_path / "run", model=other)
    assert same(back.initial_model, model)
    assert same(back.model, moved(model))
    with pytest.raises(gn.RunFolderError, match="pass it to load"):
        gn.load(tmp_path / "run")


def test_a_model_of_another_shape_is_refused(run, tmp_path):
    dataclasses.replace(run, model=Linear.at([1.0, 2.0]), initial_model=Linear.at([0.0, 0.0])).save(tmp_path / "run")
    with pytest.raises(gn.RunFolderError, match="same structure"):
        gn.load(tmp_path / "run", model=Linear.at([1.0, 2.0, 3.0]))


def test_a_flow_or_problem_with_parts_of_the_users(run, tmp_path):
    flow = GaussNewtonFlow("identity", Schedule(lambda t: 1 / (1 + t)))
    problem = dataclasses.replace(run).problem
    with_teacher = gn.Problem(problem.x_train, problem.y_train, teacher=Linear.at([1.0, 2.0]))
    dataclasses.replace(run, flow=flow, problem=with_teacher).save(tmp_path / "run")
    for given in ({}, {"flow": flow}, {"problem": with_teacher}):
        with pytest.raises(gn.RunFolderError, match="pass it to load"):
            gn.load(tmp_path / "run", **given)
    back = gn.load(tmp_path / "run", flow=flow, problem=with_teacher)
    assert back.flow is flow
    assert back.problem is with_teacher


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


def test_nothing_is_overwritten(run, saved, tmp_path):
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
    ("name", "match"),
    [
        ("subprocess:Popen", "only gnflow's own classes"),
        ("gnflowers.models:MeanFieldNetwork", "only gnflow's own classes"),
        ("gnflow.models._mean_field:NoSuchNetwork", "does not have"),
        ("gnflow.no_such_module:Thing", "does not have"),
        ("gnflow.simulate._store:shutil", "no class of gnflow"),
    ],
)
def test_classes_that_are_not_gnflows_are_refused(saved, name, match):
    edited(saved, lambda record: record["objects"]["model"].update(__class__=name))
    with pytest.raises(gn.RunFolderError, match=match):
        gn.load(saved)


def test_a_failed_run_can_be_saved(tmp_path):
    flow, axes = GradientFlow(1.0), Axes(targets=(0.0, 5.0))
    with pytest.raises(gn.SimulationError) as caught:
        gn.iterate(axes.problem, Linear.at([0.0, 0.0]), flow, step_size=2e60, num_steps=10)
    caught.value.trajectory.save(tmp_path / "run")
    back = gn.load(tmp_path / "run", model=Linear.at([0.0, 0.0]))
    assert back.result.failed
    xr.testing.assert_identical(back.data, caught.value.trajectory.data)
