import json
import os
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest
import xarray as xr
from sweeps.processes import environment, tiny_sweep, tiny_table

import gnflow as gn
from gnflow.config import to_toml
from gnflow.sweeps import AbstractEngine, LocalEngine, SweepStore, load_curves, run_cell, sweep
from gnflow.sweeps._cell import outcome_of_code, outcome_of_error

HERE = LocalEngine(workers=1)
# What depends on when and where a cell was computed, not on what it is.
_INCIDENTAL = ("wall_seconds",)


def results(folder):
    return gn.load(folder).drop_vars(_INCIDENTAL)


def assert_same(data, other):
    """Identical, but for the order of keys in the configuration, which TOML changes."""
    configurations = [json.loads(each.attrs["configuration"]) for each in (data, other)]
    assert configurations[0] == configurations[1]
    xr.testing.assert_identical(data.assign_attrs(configuration=""), other.assign_attrs(configuration=""))


class Recording(AbstractEngine):
    """Computes here, and notes what it was asked for."""

    def __init__(self, after=None):
        self.seeds = []
        self.after = after or {}

    def run(self, cells, wanted=lambda cell: True):
        for cell in cells:
            if wanted(cell):
                self.seeds.append(cell.seed)
                yield run_cell(cell)
                self.after.get(cell.seed, lambda: None)()

    def describe(self):
        return "a recording"


def interrupt():
    raise KeyboardInterrupt


class TestResume:
    def test_the_result_is_what_load_gives(self, tmp_path):
        returned = sweep(tiny_sweep(seeds=(0, 1)), tmp_path / "out", engine=HERE)
        assert_same(returned, gn.load(tmp_path / "out"))
        assert dict(returned.sizes) == {"tau0": 2, "flow": 1, "seed": 2, "target": 8}
        assert set(returned["result"].to_numpy().flat) == {"num_steps_reached"}

    def test_a_file_a_table_and_a_specification_are_the_same_sweep(self, tmp_path):
        (tmp_path / "tiny.toml").write_text(to_toml(tiny_table(name="tiny")))
        first = sweep(tmp_path / "tiny.toml", tmp_path / "out", engine=HERE)
        nothing = Recording()
        for spec in (tiny_table(name="tiny"), str(tmp_path / "tiny.toml"), tiny_sweep(name="tiny")):
            assert_same(sweep(spec, tmp_path / "out", engine=nothing), first)
        assert nothing.seeds == []

    def test_ctrl_c_keeps_what_is_finished(self, tmp_path):
        spec = tiny_sweep(seeds=range(4), scales=[1.0])
        engine = Recording({1: interrupt})
        with pytest.raises(KeyboardInterrupt):
            sweep(spec, tmp_path, engine=engine)
        assert list(gn.load(tmp_path)["result"].to_numpy()[0, 0]) == ["num_steps_reached"] * 2 + ["missing"] * 2
        engine = Recording()
        sweep(spec, tmp_path, engine=engine)
        assert engine.seeds == [2, 3]
        assert not (gn.load(tmp_path)["result"] == "missing").any()

    def test_more_seeds_and_values_compute_only_those(self, tmp_path):
        sweep(tiny_sweep(), tmp_path, engine=HERE)
        engine = Recording()
        sweep(tiny_sweep(seeds=(0, 7), scales=(0.1, 1.0, 2.0)), tmp_path, engine=engine)
        assert sorted(engine.seeds) == [0, 7, 7, 7]

    def test_a_data_file_is_known_by_its_content(self, tmp_path, capsys):
        file, out = tmp_path / "data.csv", tmp_path / "out"
        file.write_text("a,b,y\n1,2,0.5\n2,1,1.5\n0,1,1.0\n")
        table = tiny_table(scales=[1.0], problem={"kind": "file", "path": str(file), "target": "y"})
        before, engine = sweep(table, out, engine=HERE), Recording()
        os.utime(file, ns=(1, 1))
        sweep(table, out, engine=engine)
        assert engine.seeds == []
        file.write_text(file.read_text().replace("1.5", "2.5"))
        after = sweep(table, out, engine=engine)
        assert engine.seeds == [0]
        assert before["train_loss"].item() != after["train_loss"].item()
        file.rename(tmp_path / "elsewhere.csv")
        capsys.readouterr()
        assert gn.load(out)["result"].item() == "missing"
        assert f"{file} cannot be read" in capsys.readouterr().err
        # The cell of the file as it was stands for itself.
        assert SweepStore(out).read(before["cell"].item())["train_loss"][-1] == before["train_loss"].item()

    def test_failed_cells_are_tried_again_only_on_request(self, tmp_path):
        spec = tiny_sweep(seeds=range(3), scales=[1.0])

        class Failing(Recording):
            def run(self, cells, wanted=lambda cell: True):
                yield outcome_of_error(cells[0], MemoryError("no room"))
                yield outcome_of_code(cells[1], "worker_died", "its process was ended by SIGKILL")
                yield run_cell(cells[2])

        data = sweep(spec, tmp_path, engine=Failing())
        assert list(data["result"].to_numpy()[0, 0]) == ["error", "worker_died", "num_steps_reached"]
        assert list(data["failed"].to_numpy()[0, 0]) == [True, True, False]
        for engine, options, seeds in ((Recording(), {}, []), (Recording(), {"retry_failed": True}, [0, 1])):
            data = sweep(spec, tmp_path, engine=engine, **options)
            assert engine.seeds == seeds
        assert not data["failed"].any()

    def test_a_cell_another_process_finished_meanwhile_is_skipped(self, tmp_path):
        spec = tiny_sweep(seeds=range(3), scales=[1.0])
        other = SweepStore(tmp_path)
        engine = Recording({0: lambda: other.put(run_cell(spec.cells[1]))})
        sweep(spec, tmp_path, engine=engine)
        assert engine.seeds == [0, 2]

    def test_a_second_runner_starts_at_the_other_end(self, tmp_path):
        spec = tiny_sweep(seeds=range(4), scales=[1.0])
        second = Recording()
        first = Recording({0: lambda: sweep(spec, tmp_path, engine=second)})
        sweep(spec, tmp_path, engine=first)
        assert (first.seeds, second.seeds) == ([0], [3, 2, 1])

    def test_also_where_the_largest_cells_go_first(self, tmp_path):
        spec = tiny_sweep(axes={"n": {"path": "problem.n_train", "values": [4, 8, 6]}})
        sizes = {cell.content_hash(): cell.problem["n_train"] for cell in spec.cells}

        class Local(Recording):
            def run(self, cells, wanted=lambda cell: True):
                for outcome in HERE.run(cells, wanted):
                    self.seeds.append(sizes[outcome.content_hash])
                    yield outcome
                    self.after.get(self.seeds[-1], lambda: None)()

        second = Local()
        first = Local({8: lambda: sweep(spec, tmp_path, engine=second)})
        sweep(spec, tmp_path, engine=first)
        assert (first.seeds, second.seeds) == ([8], [4, 6])


class TestBadInput:
    def test_nothing_is_computed_or_written_for_an_engine_that_does_not_exist(self, tmp_path):
        with pytest.raises(gn.ConfigError, match="engine = 'cloud'"):
            sweep(tiny_sweep(), tmp_path / "out", engine="cloud")
        assert not (tmp_path / "out").exists()

    def test_cells_that_cannot_be_prepared_stop_the_sweep_before_it_begins(self, tmp_path):
        engine = Recording()
        with pytest.raises(gn.ConfigError, match=r"init_scale = -1\.0"):
            sweep(tiny_sweep(scales=[1.0, -1.0]), tmp_path / "out", engine=engine)
        assert engine.seeds == []
        assert not (tmp_path / "out").exists()

    def test_a_size_beside_a_specification(self, tmp_path):
        with pytest.raises(gn.ConfigError, match="size = 'smoke' is given beside a Specification"):
            sweep(tiny_sweep(), tmp_path, size="smoke")

    def test_a_folder_that_cannot_be_written_ends_the_engine(self, tmp_path, monkeypatch):
        def full(store, outcome):
            raise gn.RunFolderError("the disk is full")

        monkeypatch.setattr(SweepStore, "put", full)
        engine = Recording()
        with pytest.raises(gn.RunFolderError, match="full"):
            sweep(tiny_sweep(seeds=range(3)), tmp_path, engine=engine)
        assert engine.seeds == [0]


def test_progress_counts_failures_and_goes_to_standard_error(tmp_path, capsys):
    axes = {"step": {"path": "integration.step_size", "values": [1e200, 0.5]}}
    sweep(tiny_sweep(axes=axes), tmp_path, engine=HERE, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 of 2 cells to compute, with this process" in captured.err
    assert "2/2" in captured.err
    assert "1 failed" in captured.err


SPEC = tiny_sweep(seeds=range(4), scales=(0.1, 1.0, 10.0), name="tiny")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    (folder / "tiny.toml").write_text(to_toml(SPEC.to_dict()))
    return folder


def start(place, out, workers=1):
    command = [sys.executable, "-m", "gnflow", "sweep", str(place / "tiny.toml"), "--out", str(place / out)]
    command += ["--workers", str(workers), "--quiet"]
    return subprocess.Popen(command, env=environment(place / "cache"), stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def uninterrupted(place):
    process = start(place, "uninterrupted")
    process.communicate()
    assert process.returncode == 0
    return place / "uninterrupted"


def assert_same_to_the_last_bit(folder, other):
    xr.testing.assert_identical(results(folder), results(other))
    curves, others = (load_curves(each, ["train_loss", "test_loss"]) for each in (folder, other))
    xr.testing.assert_identical(curves, others)
    assert np.isfinite(curves["train_loss"].to_numpy()).all()


class TestSeveralProcesses:
    @pytest.mark.slow
    def test_killed_and_resumed_is_as_if_uninterrupted(self, place, uninterrupted):
        # Killed when the folder is begun, after the first cell, and in the middle of whatever follows more of them.
        for count, delay in ((0, 0.0), (1, 0.0), (4, 0.003)):
            process = start(place, "killed")
            while len(list((place / "killed").glob("cells/*/*.nc"))) < count or not (place / "killed").exists():
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        missing = int((gn.load(place / "killed")["result"] == "missing").sum())
        assert 0 < missing < 12
        kept = {file: file.stat().st_mtime_ns for file in (place / "killed").glob("cells/*/*.nc")}
        process = start(place, "killed")
        out, _ = process.communicate()
        assert process.returncode == 0
        assert "12 of 12 cells" in out
        assert all(file.stat().st_mtime_ns == changed for file, changed in kept.items())
        assert_same_to_the_last_bit(place / "killed", uninterrupted)
        # What the killed writers left is gone.
        assert not list((place / "killed").rglob(".*"))

    @pytest.mark.slow
    def test_killed_with_workers_and_resumed(self, place, uninterrupted):
        process = start(place, "with_workers", workers=2)
        while not list((place / "with_workers").glob("cells/*/*.nc")):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kept = {file: file.stat().st_mtime_ns for file in (place / "with_workers").glob("cells/*/*.nc")}
        assert 0 < len(kept) < 12
        process = start(place, "with_workers", workers=2)
        out, _ = process.communicate()
        assert process.returncode == 0
        assert "12 of 12 cells" in out
        assert all(file.stat().st_mtime_ns == changed for file, changed in kept.items())
        # Another number of threads may add in another order.
        xr.testing.assert_allclose(results(place / "with_workers"), results(uninterrupted), rtol=1e-9)
        assert not list((place / "with_workers").rglob(".*"))

    @pytest.mark.slow
    def test_two_runners_on_one_folder(self, place, uninterrupted):
        runners = [start(place, "shared") for _ in range(2)]
        for runner in runners:
            out, _ = runner.communicate()
            assert runner.returncode == 0
            assert "12 of 12 cells" in out
        assert_same_to_the_last_bit(place / "shared", uninterrupted)
        assert tomllib.loads((place / "shared" / "config.toml").read_text())["name"] == "tiny"
        assert not (place / "shared" / "set_aside").exists()
