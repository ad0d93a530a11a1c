"""The folder of `gnflow run`: nothing of anybody's is overwritten, no run is lost, and nothing in it is believed unread."""

import errno
import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import PROBLEM_MODEL_FLOW, THREE_STEPS

import gnflow as gn
from gnflow.cli import main
from gnflow.config import RunSpec, read_sweep, to_toml
from gnflow.sweeps import SweepStore

CONFIG = (
    """# my notes: do not lose
name = "own"

"""
    + PROBLEM_MODEL_FLOW
    + """
"""
    + THREE_STEPS
)
LABEL = "base/descent/seed-0"
OLDER = Path(__file__).parents[1] / "fixtures" / "version_0_1_0" / "runs"


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures are not what is tested."""
    monkeypatch.setattr(importlib.import_module("gnflow.cli._compute"), "draw_figures", lambda *_, **__: [])


@pytest.fixture
def own(tmp_path):
    """A folder of the user's, with a configuration called as gnflow calls its own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.toml").write_text(CONFIG)
    return tmp_path / "own"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder that gnflow run wrote; to be copied."""
    place = tmp_path_factory.mktemp("made")
    (place / "mine.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("gnflow.cli._compute"), "draw_figures", lambda *_, **__: [])
        assert main(["run", str(place / "mine.toml"), "--out", str(place / "out"), "--quiet"]) == 0
    return place / "out"


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


def run(config, out, *more):
    return main(["run", str(config), "--out", str(out), "--quiet", *more])


class TestConfigurationsOfOthers:
    def test_one_that_gnflow_did_not_write_is_not_overwritten(self, own, capsys):
        assert run(own / "config.toml", own, "--resume", "--set", "model.width=7") == 2
        error = capsys.readouterr().err
        assert all(part in error for part in (str(own / "config.toml"), "not overwritten", "--out"))
        assert [path.name for path in own.iterdir()] == ["config.toml"]
        assert (own / "config.toml").read_text() == CONFIG

    def test_nor_without_resume(self, own, capsys):
        assert run(own / "config.toml", own) == 2
        assert "a configuration that gnflow did not write" in capsys.readouterr().err

    def test_nor_one_that_looks_like_gnflows(self, own):
        # Without comments and in gnflow's own layout, and yet a person's.
        plain = to_toml(tomllib.loads(CONFIG))
        (own / "config.toml").write_text(plain)
        assert run(own / "config.toml", own, "--resume", "--set", "model.width=7") == 2
        assert (own / "config.toml").read_text() == plain

    def test_one_that_says_the_same_is_left_as_it_is(self, own):
        assert run(own / "config.toml", own, "--resume") == 0
        assert (own / "config.toml").read_text() == CONFIG
        assert gn.load(own / "runs" / LABEL).result.code == "num_steps_reached"

    def test_one_that_a_person_has_edited_is_not_overwritten(self, folder):
        edited = (folder / "config.toml").read_text() + "# a note\n"
        (folder / "config.toml").write_text(edited)
        assert run(folder / "config.toml", folder, "--resume", "--set", "seeds=[0, 1]") == 2
        assert run(folder / "config.toml", folder, "--resume") == 0
        assert (folder / "config.toml").read_text() == edited

    @pytest.mark.parametrize("content", [b"\xff\xfe", b"a = [", b"a = " + b"[" * 5000, b""])
    def test_one_that_is_none_is_refused(self, content, own, tmp_path, capsys):
        (tmp_path / "mine.toml").write_text(CONFIG)
        (own / "config.toml").write_bytes(content)
        assert run(tmp_path / "mine.toml", own, "--resume") == 2
        assert capsys.readouterr().err.startswith("gnflow: error: ")
        assert (own / "config.toml").read_bytes() == content

    def test_gnflows_own_goes_on(self, folder):
        assert run(folder / "config.toml", folder, "--resume", "--set", "seeds=[0, 1]") == 0
        assert read_sweep(folder / "config.toml").table["seeds"] == [0, 1]

    def test_one_of_a_folder_that_was_killed_before_its_first_run_goes_on(self, folder):
        shutil.rmtree(folder / "runs")
        (folder / "summary.csv").unlink()
        assert run(folder / "config.toml", folder, "--resume", "--set", "model.width=7") == 0


class TestOlderFolders:
    def test_a_folder_of_version_0_1_0_goes_on(self, tmp_path):
        older = shutil.copytree(OLDER, tmp_path / "older")
        before = {path: path.stat().st_mtime_ns for path in older.rglob("*.nc")}
        iterate = "integration={method='iterate', step_size=0.1, num_steps=1}"
        # Its runs are another configuration's with this integration, and nothing is touched.
        assert run(older / "config.toml", older, "--resume", "--set", iterate) == 2
        assert run(older / "config.toml", older, "--resume") == 0
        assert {path: path.stat().st_mtime_ns for path in older.rglob("*.nc")} == before


class TestPaths:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        (tmp_path / "home").mkdir()
        return tmp_path / "home"

    def test_the_home_folder_is_meant_by_a_tilde(self, home, capsys):
        (home / "mine.toml").write_text(CONFIG)
        assert main(["run", "~/mine.toml", "--out=~/out", "--quiet"]) == 0
        assert (home / "out" / "runs" / LABEL / "run.json").is_file()
        assert main(["plot", "~/out"]) == 0
        assert main(["verify", "~/out", "--out=~/proofs", "--theorem", "rate", "--quiet"]) in (0, 1, 2)
        assert not Path("~").exists()

    def test_data_files_too(self, home, tmp_path):
        rows = np.random.default_rng(0).normal(size=(9, 3))
        np.savez(home / "data.npz", x_train=rows[:, :2], y_train=rows[:, 2])
        problem = "problem={kind='file', path='~/data.npz', n_train=5}"
        (home / "mine.toml").write_text(CONFIG)
        assert run(home / "mine.toml", tmp_path / "out", "--set", problem) == 0
        assert read_sweep(tmp_path / "out" / "config.toml").table["problem"]["path"] == str(home / "data.npz")

    @pytest.mark.parametrize("text", ["", "a\0b", "n" * 300, "x/" * 3000, "~nobody-of-this-name/x"])
    @pytest.mark.parametrize("verb", ["run", "out", "plot", "verify", "sweep"])
    def test_what_is_no_path_is_refused(self, text, verb, home, capsys):
        (home / "mine.toml").write_text(CONFIG)
        arguments = {"run": ["run", text], "out": ["run", "~/mine.toml", f"--out={text}"]}.get(verb, [verb, text])
        assert main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("gnflow: error: ")


class TestFoldersThatCannotBeWritten:
    @pytest.fixture
    def config(self, tmp_path):
        (tmp_path / "mine.toml").write_text(CONFIG)
        return tmp_path / "mine.toml"

    @pytest.fixture
    def uncomputed(self, monkeypatch):
        def refuse(*arguments, **options):
            raise AssertionError("something was computed")

        monkeypatch.setattr(RunSpec, "run", refuse)

    @pytest.mark.usefixtures("uncomputed")
    def test_a_full_disk_is_found_before_anything_is_computed(self, config, tmp_path, monkeypatch, capsys):
        module = importlib.import_module("gnflow._core._files")

        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(module, "draft_of", full)
        assert run(config, tmp_path / "out") == 2
        assert "the disk is full" in capsys.readouterr().err

    @pytest.mark.usefixtures("uncomputed")
    def test_a_folder_within_a_file(self, config, capsys):
        assert run(config, config / "out") == 2
        assert f"cannot be made, because {config} is a file" in capsys.readouterr().err

    def test_a_run_that_cannot_be_kept_is_kept_elsewhere_and_the_others_go_on(
        self, config, tmp_path, monkeypatch, capsys
    ):
        out = tmp_path / "out"
        store = importlib.import_module("gnflow.simulate._store")
        write = store._write

        def fails(target, *arguments):
            if out in target.parents and "seed-0" in str(target):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(target, *arguments)

        monkeypatch.setattr(store, "_write", fails)
        monkeypatch.chdir(tmp_path)
        assert run(config, out, "--set", "seeds=[0, 1]") == 1
        captured = capsys.readouterr()
        assert "No space left" in captured.err
        (kept,) = tmp_path.glob("gnflow-rescued-*/run")
        assert f"It is kept in {kept}" in captured.err
        assert f"It is kept in {kept}" in captured.out
        assert (out / "runs" / "base" / "descent" / "seed-1" / "run.json").is_file()
        # And it can be brought back, as the message says.
        monkeypatch.undo()
        kept.rename(out / "runs" / LABEL)
        assert gn.load(out)["result"].to_numpy().tolist() == [["num_steps_reached"] * 2]
        assert len(SweepStore(out).trajectories.finished()) == 2

    def test_a_run_that_can_be_kept_nowhere_is_said_to_be_lost(self, config, tmp_path, monkeypatch, capsys):
        def fails(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(importlib.import_module("gnflow.simulate._store"), "_write", fails)
        assert run(config, tmp_path / "out") == 1
        assert "It could be kept nowhere else" in capsys.readouterr().err


class TestHostileFolders:
    """Whatever stands in a folder: an error of gnflow's, exit code 2 or 1, and nothing executed."""

    FILES = (
        "config.toml",
        f"runs/{LABEL}/specification.json",
        f"runs/{LABEL}/run.json",
        f"runs/{LABEL}/arrays.npz",
        f"runs/{LABEL}/trajectory.nc",
    )
    CONTENTS = (
        b"",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"variant": null, "seed": []}',
        b"3",
    )

    @pytest.mark.parametrize("content", CONTENTS, ids=lambda content: repr(content[:8]))
    @pytest.mark.parametrize("name", FILES)
    def test_a_file_that_is_not_what_it_should_be(self, name, content, folder, tmp_path, capsys):
        (folder / name).write_bytes(content)
        (tmp_path / "mine.toml").write_text(CONFIG)
        assert run(tmp_path / "mine.toml", folder, "--resume") in (1, 2)
        assert "gnflow: " in capsys.readouterr().err

    def test_a_specification_whose_fields_are_null(self, folder, tmp_path, capsys):
        file = folder / "runs" / LABEL / "specification.json"
        table = json.loads(file.read_text())
        (tmp_path / "mine.toml").write_text(CONFIG)
        for name in table:
            file.write_text(json.dumps({**table, name: {"a": None} if table[name] is None else None}))
            assert run(tmp_path / "mine.toml", folder, "--resume") == 2
            assert capsys.readouterr().err.startswith("gnflow: error: ")


class TestFigures:
    @pytest.fixture
    def drawing(self, monkeypatch):
        """With figures, which the other tests here leave out."""
        module = importlib.import_module("gnflow.cli._compute")
        monkeypatch.setattr(module, "draw_figures", importlib.import_module("gnflow.plots").draw_figures)

    @pytest.mark.usefixtures("drawing")
    def test_a_run_that_diverges_has_its_figures(self, tmp_path, capsys):
        (tmp_path / "mine.toml").write_text(CONFIG)
        steps = [*("--set", "integration.step_size=1e30"), *("--set", "integration.num_steps=20")]
        assert run(tmp_path / "mine.toml", tmp_path / "out", *steps) == 1
        captured = capsys.readouterr()
        assert "non_finite" in captured.out
        assert captured.err == ""
        assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} >= {"loss.png"}

    @pytest.mark.parametrize("error", [OverflowError("big"), ValueError("a\nb"), OSError("no room"), MemoryError()])
    def test_one_that_cannot_be_drawn_leaves_the_others(self, error, folder, monkeypatch, capsys):
        def fails(*arguments):
            raise error

        figures = importlib.import_module("gnflow.plots._run_figures").RUN_FIGURES
        monkeypatch.setitem(figures, "loss", fails)
        assert main(["plot", str(folder)]) == 1
        captured = capsys.readouterr()
        *_, told = captured.err.splitlines()
        assert told.startswith(f"gnflow: the figure loss cannot be drawn: {type(error).__name__}")
        assert [Path(line).name for line in captured.out.splitlines()] == ["directions.png"]

    def test_one_of_a_sweep_too(self, tmp_path, monkeypatch, capsys):
        sweep = shutil.copytree(OLDER.parent / "sweep", tmp_path / "sweep")

        def fails(*arguments, **options):
            raise OverflowError("big")

        monkeypatch.setattr(importlib.import_module("gnflow.plots._draw"), "heat_map_figure", fails)
        assert main(["plot", str(sweep)]) == 1
        captured = capsys.readouterr()
        assert "gnflow: the figure map-test_loss cannot be drawn: OverflowError: big" in captured.err
        assert "Traceback" not in captured.err
        assert "lines.png" in captured.out

    def test_figures_that_cannot_be_written(self, folder, capsys):
        shutil.rmtree(folder / "figures", ignore_errors=True)
        (folder / "figures").write_text("in the way")
        assert main(["plot", str(folder)]) == 2
        assert "gnflow: error: cannot write to" in capsys.readouterr().err

    def test_a_run_of_a_users_model_is_drawn_from_its_data(self, tmp_path, capsys):
        own = shutil.copytree(OLDER.parent / "users_model", tmp_path / "users_model")
        assert main(["plot", str(own)]) == 0
        captured = capsys.readouterr()
        assert [Path(line).name for line in captured.out.splitlines()] == ["loss.png"]
        assert "users_model is drawn without what needs its model" in captured.err
        assert (own / "figures" / "loss.png").stat().st_size > 0

    def test_folders_of_version_0_1_0_are_drawn(self, tmp_path, capsys):
        for kind in ("runs", "own_model", "sweep"):
            folder = shutil.copytree(OLDER.parent / kind, tmp_path / kind)
            assert main(["plot", str(folder)]) == 0
            assert len(capsys.readouterr().out.splitlines()) > 1

    def test_a_run_that_is_damaged_is_left_out_of_a_folders(self, tmp_path, capsys):
        folder = shutil.copytree(OLDER, tmp_path / "runs")
        (folder / "runs" / "base" / "newton" / "seed-0" / "trajectory.nc").write_bytes(b"nothing")
        assert main(["plot", str(folder)]) == 0
        captured = capsys.readouterr()
        assert "base/newton/seed-0 is left out" in captured.err
        assert "loss.png" in captured.out


class TestCertificates:
    def test_a_folder_that_cannot_be_written_is_found_before_anything_is_checked(
        self, folder, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(importlib.import_module("gnflow.cli._check_theorems"), "verify", None)
        (tmp_path / "note").write_text("mine")
        assert main(["verify", str(folder), "--out", str(tmp_path / "note" / "x"), "--quiet"]) == 2
        assert "cannot write to" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--version"], ["run", "mine.toml", "--quiet"]], ids=lambda arguments: arguments[0]
)
def test_an_output_that_nobody_reads(arguments, tmp_path):
    """The table is the last thing that is printed; what went before it is kept."""
    (tmp_path / "mine.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "gnflow", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("gnflow: the output cannot be written: No space left on device.\n")
    assert "Traceback" not in done.stderr
    if arguments[0] == "run":
        assert list((tmp_path / "gnflow-runs" / "own" / "figures").glob("*.png"))


def test_a_checkpoint_is_no_entry_of_a_configuration(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(
        CONFIG.replace('method = "iterate"', 'checkpoint = "x"').replace("step_size = 0.5\nnum_steps = 3", "t1 = 1.0")
    )
    assert main(["run", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "integration: unknown option 'checkpoint'" in capsys.readouterr().err
