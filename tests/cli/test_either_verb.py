"""`gnflow run` and `gnflow sweep` take the same files, and their folders hold the same things."""

import numpy as np
import pytest
from tiny_runs import PROBLEM_MODEL_FLOW, THREE_STEPS

import gnflow as gn
from gnflow.cli import main
from gnflow.config import RunSpec

CONFIG = (
    """
name = "either"
metrics = ["kernel_distance"]

"""
    + PROBLEM_MODEL_FLOW
    + """
"""
    + THREE_STEPS
    + """
[variants.silu]
"model.activation" = "silu"

[variants.tanh]
"model.activation" = "tanh"

[axes.tau0]
path = "model.init_scale"
values = [0.1, 10.0]

[sizes.small]
axes.tau0.values = [0.1]
"""
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "either.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def run_folder(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(["run", str(config), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def sweep_folder(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    assert main(["sweep", str(config), "--out", str(out), "--quiet", "--engine", "serial"]) == 0
    return out


def names(folder):
    return {path.name for path in (folder / "figures").iterdir()}


def test_both_give_the_same_data_set(run_folder, sweep_folder):
    first, second = gn.load(run_folder), gn.load(sweep_folder)
    assert first["train_loss"].dims == ("variant", "tau0", "flow", "seed")
    np.testing.assert_array_equal(first["cell"], second["cell"])
    np.testing.assert_array_equal(first["train_loss"], second["train_loss"])
    assert gn.load(run_folder / "runs" / "tanh,tau0=0.1" / "descent" / "seed-0").model is not None
    assert not (sweep_folder / "runs").exists()


def test_figures_are_of_what_there_is(run_folder, sweep_folder, capsys):
    assert main(["plot", str(sweep_folder)]) == 0
    of_the_grid = {"map-test_loss.png", "map-kernel_distance.csv", "regimes.png", "lines.png"}
    of_runs = {f"{name}-{where}.png" for name in ("loss", "movement") for where in ("silu-tau0=0.1", "tanh-tau0=10")}
    assert of_the_grid | of_runs <= names(run_folder)
    assert of_the_grid <= names(sweep_folder)
    assert not of_runs & names(sweep_folder)


def test_a_size_of_the_file(config, tmp_path, capsys):
    assert main(["run", str(config), "--out", str(tmp_path), "--size", "small", "--quiet"]) == 0
    assert "2 of 2 runs" in capsys.readouterr().out


def test_a_sweep_goes_on_with_the_folder_of_a_run_and_the_other_way_round(run_folder, config, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.nc")}
    assert main(["sweep", str(config), "--out", str(run_folder), "--quiet", "--engine", "serial"]) == 0
    assert "4 of 4 cells" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.nc")} == before
    out = tmp_path / "out"
    assert main(["sweep", str(config), "--out", str(out), "--size", "small", "--quiet", "--engine", "serial"]) == 0
    # Its cells have no trajectories: they are made again, to keep them.
    assert main(["run", str(config), "--out", str(out), "--quiet", "--resume"]) == 0
    assert "4 of 4 runs" in capsys.readouterr().out


def test_nothing_is_drawn_of_runs_that_all_raised_an_error(config, tmp_path, monkeypatch, capsys):
    def broken(spec, **options):
        raise gn.DataError("bad luck")

    monkeypatch.setattr(RunSpec, "run", broken)
    options = ["--set", "axes={}", "--quiet"]
    assert main(["run", str(config), "--out", str(tmp_path), *options]) == 1
    assert "0 of 2 runs and 0 figures" in capsys.readouterr().out


def test_verify_takes_kept_runs_alone(sweep_folder, capsys):
    assert main(["verify", str(sweep_folder), "--quiet"]) == 2
    assert "holds no finished run whose trajectory was kept" in capsys.readouterr().err
