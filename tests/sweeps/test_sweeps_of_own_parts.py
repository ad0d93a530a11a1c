"""Sweeps with parts of the user's own: over their options, in other processes, resumed, read without any import."""

import json
import sys

import pytest
from config.own_module import NAME, TABLE, TEXT, as_in_a_new_process, write

import gnflow as gn
from gnflow import ConfigError
from gnflow.config import Specification
from gnflow.sweeps import SweepStore
from gnflow.sweeps._worker import work

AXES = {"power": {"path": "flows.mine.power", "values": [0.0, 0.5]}}
GRID = {**TABLE, "name": "own", "axes": AXES}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    with as_in_a_new_process():
        yield tmp_path


def digest():
    return Specification.from_dict(GRID, imports=True).sources[NAME].sha256


def test_worker_processes_import_the_same_module_and_a_folder_alone_imports_nothing(folder):
    """The one test with a process of its own."""
    swept = gn.sweep(GRID, "out", workers=1)
    assert swept["result"].to_numpy().ravel().tolist() == ["num_steps_reached"] * 2
    first, second = swept["train_loss"].to_numpy().ravel()
    assert first != second
    recorded = {NAME: [{"sha256": digest(), "version": None}]}
    assert json.loads((folder / "out" / "modules.json").read_text()) == recorded
    cell = SweepStore("out").read(str(swept["cell"].to_numpy().ravel()[0]))
    assert json.loads(cell.attrs["modules"]) == recorded
    with as_in_a_new_process():
        write(folder, text="raise RuntimeError('imported')")
        again = gn.load("out")
        assert NAME not in sys.modules
        assert again["train_loss"].equals(swept["train_loss"])


def test_resuming_compares_the_digest(folder):
    gn.sweep(GRID, "out", engine="serial")
    old = digest()
    more = {**GRID, "axes": {"power": {**AXES["power"], "values": [0.0, 0.5, 0.75]}}}
    with as_in_a_new_process():
        write(folder, text=TEXT + "\n\nchanged = True\n")
        new = digest()
        with pytest.raises(
            ConfigError, match=rf"digest {new[:12]} here, and {old[:12]} in the runs of out.*--accept-digest {new[:12]}"
        ):
            gn.sweep(more, "out", engine="serial")
        with pytest.raises(ConfigError, match=r"'abc' is no digest; expected its first 8 to 64"):
            gn.sweep(more, "out", engine="serial", accept_digests=["abc"])
        with pytest.raises(ConfigError, match="its source was changed"):
            gn.sweep(more, "out", engine="serial", accept_digests=[old])
        swept = gn.sweep(more, "out", engine="serial", accept_digests=[new[:12]])
        assert not swept["failed"].any()
        assert [entry["sha256"] for entry in json.loads((folder / "out" / "modules.json").read_text())[NAME]] == [
            old,
            new,
        ]
        modules = [
            json.loads(SweepStore("out").read(str(name)).attrs["modules"])[NAME][-1]["sha256"]
            for name in swept["cell"].to_numpy().ravel()
        ]
        assert modules == [old, old, new]
        gn.sweep(more, "out", engine="serial")  # it is known from now on


def test_a_worker_refuses_another_module_than_the_driver_has(folder):
    (cell, _) = Specification.from_dict(GRID, imports=True).cells
    sources = tuple(cell.sources.values())
    with as_in_a_new_process():
        write(folder, text="other = True")
        outcome = work(cell.to_dict(), sources)
        assert outcome.record["code"] == "error"
        assert "in the process that drives the sweep: its source was changed" in outcome.record["message"]
        assert NAME not in sys.modules
    with as_in_a_new_process():
        (folder / f"{NAME}.py").unlink()
        assert f"there is no module '{NAME}'" in work(cell.to_dict(), sources).record["message"]


def test_kept_trajectories_say_which_module_they_were_made_with(folder):
    gn.sweep(GRID, "out", keep_trajectories=True)
    (run, _) = sorted((folder / "out" / "runs").glob("*/*/*"))
    assert json.loads((run / "modules.json").read_text()) == {NAME: [{"sha256": digest(), "version": None}]}
    with pytest.raises(gn.RunFolderError, match=rf"a flow of {NAME}:Normalised.*load\(folder, flow=flow\)"):
        gn.load(run)
    flow = sys.modules[NAME].Normalised(power=0.0)
    assert gn.load(run, flow=flow).flow is flow
    (folder / "out" / "index.jsonl").unlink()
    store = SweepStore("out")
    cell = store.read(next(iter(store.trajectories.finished())))  # derived from the trajectory
    assert NAME in json.loads(cell.attrs["modules"])


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', '{"a": []}', '{"a": [{"sha256": 1}]}', "{"])
def test_a_damaged_file_of_modules_is_named(folder, text):
    (folder / "out").mkdir()
    (folder / "out" / "modules.json").write_text(text)
    with pytest.raises(gn.RunFolderError, match=r"modules\.json"):
        gn.sweep(GRID, "out", engine="serial")
