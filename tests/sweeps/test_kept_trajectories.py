"""A grid whose trajectories are kept: the same data set, and whole runs beside it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sweeps.processes import tiny_sweep, tiny_table

import gnflow as gn
from gnflow.config import RunSpec, Specification
from gnflow.sweeps import SweepStore, compute, load_curves, sweep

OLDER = Path(__file__).parents[1] / "fixtures" / "version_0_1_0"
SPEC = tiny_sweep(seeds=(0, 1), name="tiny")
RUNS = [f"tau0={scale}/descent/seed-{seed}" for scale in ("0.1", "1.0") for seed in (0, 1)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "out"
    sweep(SPEC, folder, keep_trajectories=True)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


@pytest.fixture
def uncomputed(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("something was computed")

    monkeypatch.setattr(RunSpec, "run", refuse)


def without_times(data):
    return data.drop_vars("wall_seconds").drop_attrs(deep=False)


class TestSweep:
    def test_the_data_set_is_that_of_cells(self, made, tmp_path):
        plain = sweep(SPEC, tmp_path / "plain", engine="serial")
        xr.testing.assert_identical(without_times(gn.load(made)), without_times(plain))
        assert not (made / "cells").exists()
        assert not (tmp_path / "plain" / "runs").exists()
        for place in (made, tmp_path / "plain"):
            curves = load_curves(place, ["train_loss", "test_loss"], tau0=1.0)
            assert curves["train_loss"].shape == (1, 2, 4)
        xr.testing.assert_identical(load_curves(made, ["train_loss"]), load_curves(tmp_path / "plain", ["train_loss"]))

    def test_every_run_is_there_whole(self, made):
        assert sorted(path.parent.relative_to(made / "runs").as_posix() for path in made.rglob("run.json")) == RUNS
        run = gn.load(made / "runs" / RUNS[0])
        assert run.model.hidden_weight.shape == (6, 2)
        expected = next(cell for cell in SPEC.cells if cell.label == RUNS[0]).run()
        np.testing.assert_array_equal(run.model.hidden_weight, expected.model.hidden_weight)

    @pytest.mark.usefixtures("uncomputed")
    def test_what_is_there_is_not_computed_again_by_whichever_engine(self, folder):
        before = gn.load(folder).assign_attrs(configuration="")
        for options in ({"keep_trajectories": True}, {"engine": "serial"}):
            xr.testing.assert_identical(sweep(SPEC, folder, **options).assign_attrs(configuration=""), before)

    def test_without_the_index_everything_is_derived_from_the_runs(self, folder):
        before = gn.load(folder)
        (folder / "index.jsonl").unlink()
        xr.testing.assert_identical(gn.load(folder), before)
        assert len((folder / "index.jsonl").read_text().splitlines()) == 4
        xr.testing.assert_identical(gn.load(folder), before)

    def test_an_edited_index_is_found_out_by_checking(self, folder, capsys):
        index = folder / "index.jsonl"
        lines = [json.loads(line) for line in index.read_text().splitlines()]
        index.write_text("".join(json.dumps({**line, "time": 7.0}) + "\n" for line in lines))
        store = SweepStore(folder)
        assert {record["time"] for record in store.finished(SPEC.hashes).values()} == {7.0}
        assert {record["time"] for record in store.finished(SPEC.hashes, check=True).values()} == {1.5}
        assert "index.jsonl said otherwise of 4 cells" in capsys.readouterr().err

    @pytest.mark.usefixtures("uncomputed")
    def test_a_damaged_run_is_named_and_stays(self, folder):
        (folder / "runs" / RUNS[0] / "trajectory.nc").write_bytes(b"nothing")
        data = sweep(SPEC, folder, keep_trajectories=True, retry_failed=True)
        assert (data["result"] == "error").to_numpy().sum() == 1
        assert f"Remove {folder / 'runs' / RUNS[0]}" in data["message"].to_numpy()[0, 0, 0]
        assert (folder / "runs" / RUNS[0] / "trajectory.nc").read_bytes() == b"nothing"

    def test_a_run_of_other_settings_in_its_place_is_refused_before_anything_is_computed(self, folder):
        (folder / "config.toml").unlink()
        (folder / "index.jsonl").unlink()
        shutil.rmtree(folder / "runs" / RUNS[1])
        SweepStore(folder)
        other = tiny_sweep(seeds=(0, 1), integration={"method": "iterate", "step_size": 0.25, "num_steps": 3})
        for name in ("runs", "summary.csv"):
            shutil.move(folder / name, folder.parent / name)
        SweepStore(folder).begin(other)
        shutil.move(folder.parent / "runs", folder / "runs")
        with pytest.raises(gn.RunFolderError, match=r"holds the run tau0=.*with other settings or data files"):
            sweep(other, folder, keep_trajectories=True)

    def test_a_cell_without_its_trajectory_is_run_again_to_keep_it(self, tmp_path):
        plain = sweep(SPEC, tmp_path, engine="serial")
        kept = sweep(SPEC, tmp_path, keep_trajectories=True)
        xr.testing.assert_identical(without_times(kept), without_times(plain))
        assert len(list(tmp_path.glob("runs/*/*/*/run.json"))) == 4
        assert list(tmp_path.glob("cells/*/*.nc")) == []

    def test_an_error_is_kept_as_a_cell_and_gives_way_to_the_run(self, tmp_path, monkeypatch, capsys):
        original = RunSpec.run

        def broken(spec, **options):
            if spec.seed == 1:
                raise RuntimeError("bad luck")
            return original(spec, **options)

        monkeypatch.setattr(RunSpec, "run", broken)
        spec = tiny_sweep(seeds=(0, 1), scales=[1.0])
        assert sweep(spec, tmp_path, keep_trajectories=True)["result"].to_numpy().tolist() == [
            [["num_steps_reached", "error"]]
        ]
        assert "bad luck" in capsys.readouterr().err
        assert len(list(tmp_path.glob("cells/*/*.nc"))) == 1
        monkeypatch.undo()
        assert sweep(spec, tmp_path, keep_trajectories=True)["failed"].to_numpy().sum() == 1
        assert sweep(spec, tmp_path, keep_trajectories=True, retry_failed=True)["failed"].to_numpy().sum() == 0
        assert list(tmp_path.glob("cells/*/*.nc")) == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"engine": "dask"}, r"keep_trajectories = True with engine = 'dask'.*leave the engine out"),
            ({"workers": 2}, r"the serial engine has no option 'workers'"),
        ],
    )
    def test_other_engines_are_refused(self, options, message, tmp_path):
        with pytest.raises(gn.ConfigError, match=message):
            sweep(SPEC, tmp_path / "out", keep_trajectories=True, **options)
        assert not (tmp_path / "out").exists()

    def test_weights_along_the_way_are_kept_with_trajectories_alone(self, tmp_path):
        method = {"method": "iterate", "step_size": 0.5, "num_steps": 3, "saveat_weights": [2]}
        spec = tiny_sweep(scales=(0.1,), integration=method)
        with pytest.raises(
            gn.ConfigError, match=r"descent/seed-0 has integration\.saveat_weights, .* no weights; make it"
        ):
            sweep(spec, tmp_path / "out", engine="serial")
        assert not (tmp_path / "out").exists()
        sweep(spec, tmp_path / "out", keep_trajectories=True)
        assert list(gn.load(tmp_path / "out" / "runs" / spec.cells[0].folder).kept_weights) == [2]

    def test_two_processes_that_finish_one_run_keep_one(self, folder, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        store = SweepStore(folder)
        outcomes = []

        class Recording(SweepStore):
            def put(self, outcome):
                outcomes.append(outcome)
                super().put(outcome)

        compute(tiny_sweep(scales=[1.0]), Recording(folder.parent / "other"))
        (outcome,) = outcomes
        assert store.put(outcome)["failed"] is False  # the folder has this run already
        assert list(tmp_path.glob("gnflow-rescued-*")) == []
        assert set(store.finished(SPEC.hashes)) == set(SPEC.hashes)


class TestFolders:
    def test_names_that_no_folder_can_have_are_replaced(self, tmp_path):
        axes = {"part": {"path": "model.init_scale", "values": [0.5, 2.0], "labels": ["a/b", "x" * 300]}}
        spec = Specification.from_dict(tiny_table(axes=axes))
        assert len({run.folder for run in spec.runs}) == 2
        assert all(len(part) < 200 and "/b" not in part for run in spec.runs for part in run.folder.split("/"))
        sweep(spec, tmp_path, keep_trajectories=True)
        assert not (gn.load(tmp_path)["result"] == "missing").any()
        assert len(list((tmp_path / "runs").glob("*/*/*/run.json"))) == 2

    def test_equal_content_is_computed_once_and_stands_at_each_position(self, tmp_path):
        table = tiny_table(variants={"one": {"model.width": 7}, "two": {"model": {"width": 7}}})
        data = sweep({**table, "axes": {}}, tmp_path, keep_trajectories=True)
        assert data["train_loss"].dims == ("variant", "flow", "seed")
        assert data["train_loss"].sel(variant="one").item() == data["train_loss"].sel(variant="two").item()
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["one"]
        assert len((tmp_path / "summary.csv").read_text().splitlines()) == 3


class TestOlderFolders:
    """What `gnflow run` of version 0.1.0 wrote, without any index."""

    def test_a_folder_is_a_data_set(self, tmp_path):
        folder = shutil.copytree(OLDER / "runs", tmp_path / "runs")
        data = gn.load(folder)
        assert dict(data.sizes) == {"flow": 2, "seed": 1, "target": 8}
        assert data.attrs["versions"] == "0.1.0"
        for flow in ("descent", "newton"):
            run = gn.load(folder / "runs" / "base" / flow / "seed-0")
            assert data["train_loss"].sel(flow=flow).item() == run.data["train_loss"].to_numpy()[-1]
            assert data["kernel_distance"].sel(flow=flow).item() == run.data["kernel_distance"].to_numpy()[-1]
        # They are those of the sweep that has the same cells, but for the scale.
        curves = load_curves(folder, ["train_loss"])
        assert curves["train_loss"].dims == ("flow", "seed", "save")

    def test_a_read_only_one_too(self, tmp_path, monkeypatch):
        folder = shutil.copytree(OLDER / "runs", tmp_path / "runs")

        def fail(*arguments):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("gnflow.sweeps._index.os.open", fail)
        assert not (gn.load(folder)["result"] == "missing").any()

    def test_a_run_whose_data_files_are_gone_is_found(self, tmp_path):
        file = tmp_path / "data.csv"
        file.write_text("a,b,y\n1,2,0.5\n2,1,1.5\n0,1,1.0\n")
        problem = {"kind": "file", "path": str(file), "target": "y"}
        sweep(tiny_table(scales=[1.0], problem=problem), tmp_path / "out", keep_trajectories=True)
        file.unlink()
        for _ in range(2):
            assert gn.load(tmp_path / "out")["result"].item() == "num_steps_reached"
        assert len((tmp_path / "out" / "index.jsonl").read_text().splitlines()) == 1
