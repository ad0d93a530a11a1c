"""Validation losses, and the lowest ones along a run: in trajectories, tables, data sets and folders."""

import csv
import json

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

import gnflow as gn
from gnflow.simulate import BEST_LOSSES, best_losses
from gnflow.sweeps import SweepStore

CONFIGURATION = {
    "name": "best",
    "seeds": [0, 1],
    "problem": {"kind": "diabetes", "n_train": 6, "n_validation": 5, "n_test": 7},
    "model": {"kind": "mean_field", "width": 8},
    "flows": {"descent": {"kind": "gradient"}},
    "integration": {"method": "iterate", "step_size": 3.0, "num_steps": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("best") / "sweep"
    gn.sweep(CONFIGURATION, place, engine="serial", progress=False)
    return place


def row(name, values):
    return (name, ("time", np.asarray(values, float)))


def test_they_are_the_first_lowest_finite_ones_with_their_time():
    times = [0.0, 0.5, 2.0, 7.0]
    test, validation = row("test_loss", [3.0, np.nan, 1.0, 1.0]), row("validation_loss", [np.inf, 2.0, 4.0, 5.0])
    both = xr.Dataset(dict([test, validation]), coords={"time": times})
    expected = {
        "best_validation_loss": 2.0,
        "best_validation_loss_time": 0.5,
        "best_test_loss": 1.0,
        "best_test_loss_time": 2.0,
    }
    found = best_losses(both)
    assert np.isnan(found.pop("test_loss_at_best_validation"))
    assert found == expected
    assert best_losses(xr.Dataset(dict([test]), coords={"time": times})) == {
        "best_test_loss": 1.0,
        "best_test_loss_time": 2.0,
    }
    assert best_losses(both.isel(time=[1])[["test_loss"]]) == {}
    assert best_losses(xr.Dataset()) == {}


def test_the_clock_of_steps_is_flow_time():
    data = xr.Dataset(
        {"test_loss": ("step", [2.0, 1.0, 3.0])}, coords={"step": [0, 1, 2], "flow_time": ("step", [0, 10, 20])}
    )
    assert best_losses(data) == {"best_test_loss": 1.0, "best_test_loss_time": 10.0}


def test_a_run_records_the_validation_loss_and_a_folder_keeps_it(tmp_path):
    problem = gn.problems.diabetes(6, 7, n_validation=5, key=jax.random.key(0))
    model = gn.models.MeanFieldNetwork(10, 8, key=jax.random.key(1))
    run = gn.iterate(problem, model, gn.flows.GradientFlow(), step_size=3.0, num_steps=4)
    for moment, network in ((0, run.initial_model), (-1, run.model)):
        outputs = jax.vmap(network)(problem.x_validation)
        np.testing.assert_allclose(
            run.data.validation_loss[moment], problem.loss.value(outputs, problem.y_validation), rtol=1e-12
        )
    assert run.data.validation_loss.attrs["long_name"] == "validation loss"
    assert set(run.best_losses) == set(BEST_LOSSES)
    assert run.best_losses["best_validation_loss"] == float(run.data.validation_loss.min())
    run.save(tmp_path / "run")
    back = gn.load(tmp_path / "run")
    assert eqx.tree_equal(back.problem, problem, typematch=True)
    assert back.problem.names == problem.names == gn.problems.Names(problem.names.inputs, ("progression",))
    assert back.best_losses == run.best_losses


def test_the_data_set_of_a_sweep_has_them(folder):
    data, curves = gn.load(folder), gn.sweeps.load_curves(folder, ["validation_loss", "test_loss"])
    for name in ("validation_loss", "test_loss"):
        np.testing.assert_array_equal(data[f"best_{name}"], curves[name].min("save"))
        at = curves[name].argmin("save")
        np.testing.assert_array_equal(data[f"best_{name}_time"], curves["flow_time"].isel(save=at))
    there = curves["test_loss"].isel(save=curves["validation_loss"].argmin("save"))
    np.testing.assert_array_equal(data["test_loss_at_best_validation"], there)
    assert "selected on the test set" in data["best_test_loss"].attrs["long_name"]
    assert data["best_test_loss_time"].attrs["units"] == "flow time"


def test_the_summary_has_them(folder):
    spec = gn.config.Specification.from_dict(CONFIGURATION)
    store = SweepStore(folder)
    store.write_summary(spec, store.finished(spec.hashes))
    with (folder / "summary.csv").open() as file:
        lines = list(csv.DictReader(file))
    data = gn.load(folder).sel(flow="descent")
    for line in lines:
        for name in (*BEST_LOSSES, "validation_loss"):
            assert float(line[name]) == float(data[name].sel(seed=int(line["seed"])))


def test_lines_of_an_older_index_are_made_again(folder):
    index = folder / "index.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    before = gn.load(folder)
    index.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "best"}) + "\n" for line in lines))
    xr.testing.assert_identical(gn.load(folder), before)
    assert all("best" in json.loads(line) for line in index.read_text().splitlines()[len(lines) :])
    assert len(index.read_text().splitlines()) == 2 * len(lines)


def test_a_problem_of_an_older_folder_with_parts_of_the_users_loads(tmp_path):
    """Its record lacks the fields that problems have got since."""
    loss = gn.losses.from_function(lambda f, y: jax.numpy.mean((f - y) ** 4), minimum=0.0)
    problem = gn.Problem([[0.0], [1.0]], [1.0, 2.0], loss=loss)
    model = gn.models.MeanFieldNetwork(1, 4, key=jax.random.key(0))
    gn.iterate(problem, model, gn.flows.GradientFlow(), step_size=0.1, num_steps=1).save(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    stored = record["objects"]["problem"]
    newer = ("x_validation", "y_validation", "input_standardisation", "target_standardisation", "names")
    for name in newer:
        del stored[name]
    file.write_text(json.dumps(record))
    assert gn.load(tmp_path / "run", problem=problem).problem is problem
    other = gn.Problem([[0.0], [1.0]], [1.0, 2.0], loss=loss, names=gn.problems.Names(inputs=("a",)))
    with pytest.raises(gn.RunFolderError, match="they differ in problem"):
        gn.load(tmp_path / "run", problem=other)
