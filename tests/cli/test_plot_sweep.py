"""`gnflow plot` on the folder of a sweep."""

import csv
import shutil
from pathlib import Path

import pytest
from tiny_runs import PROBLEM_MODEL_FLOW, THREE_STEPS

from gnflow.cli import main
from gnflow.sweeps import load_sweep

OLDER = Path(__file__).parents[1] / "fixtures" / "version_0_1_0"
CONFIG = (
    """
name = "tiny"
metrics = ["kernel_distance", { kind = "particles", max_count = 4 }]
seeds = [0]

"""
    + PROBLEM_MODEL_FLOW
    + """
[flows.newton]
kind = "gauss_newton"
damping = { kind = "constant", value = 0.1 }

"""
    + THREE_STEPS
    + """
[axes.tau0]
path = "model.init_scale"
values = [0.1, 10.0]
label = "initialisation scale"
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweep")
    (place / "tiny.toml").write_text(CONFIG)
    assert main(["sweep", str(place / "tiny.toml"), "--out", str(place / "out"), "--workers", "1", "--quiet"]) == 0
    return place / "out"


def plotted(folder, capsys, *options):
    for file in (folder / "figures").glob("*"):
        file.unlink()
    capsys.readouterr()
    assert main(["plot", str(folder), *options]) == 0
    written = capsys.readouterr().out.splitlines()
    assert sorted(written) == sorted(str(path) for path in (folder / "figures").iterdir())
    return {path.rpartition("/")[2] for path in written}


@pytest.mark.slow
def test_everything_that_the_data_allow(folder, capsys):
    # With the flows along x there is one animation, at the first tau0.
    names = plotted(folder, capsys, "--curves", "--x", "flow")
    assert {
        "map-test_loss.png",
        "map-kernel_distance.csv",
        "regimes.png",
        "curves-train_loss-tau0=0.1.png",
        "curves-test_loss-tau0=10.csv",
        "particles.gif",
        "particles.csv",
        "particles-stills.png",
    } <= names


@pytest.mark.slow
def test_particles_without_a_teacher(tmp_path, capsys):
    (tmp_path / "data.csv").write_text("a,b,y\n1,2,0.5\n2,1,1.5\n0,1,1.0\n")
    problem = f'[problem]\nkind = "file"\npath = "{tmp_path}/data.csv"\ntarget = "y"\n'
    start, end = CONFIG.index("[problem]"), CONFIG.index("[model]")
    (tmp_path / "tiny.toml").write_text(CONFIG[:start] + problem + CONFIG[end:])
    assert (
        main(["sweep", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out"), "--workers", "1", "--quiet"]) == 0
    )
    names = plotted(tmp_path / "out", capsys, "--curves")
    assert {"curves-train_loss.png", "particles-tau0=0.1.gif", "particles-tau0=10.gif"} <= names


def test_the_numbers_beside_a_figure_are_those_of_the_cells(folder, capsys):
    names = plotted(
        folder, capsys, "--variable", "test_loss_ratio", "--reference", "newton", "--x", "tau0", "--y", "flow"
    )
    assert "map-test_loss_ratio.png" in names
    assert not {"map-test_loss.png", "curves-train_loss.png"} & names
    loss = load_sweep(folder)["test_loss"]
    expected = (loss / loss.sel(flow="newton")).median("seed")
    with (folder / "figures" / "map-test_loss_ratio.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        cell = expected.sel(tau0=float(row["tau0"]), flow=row["flow"])
        assert float(row["median"]) == pytest.approx(float(cell), rel=1e-14)


def test_bad_options(folder, tmp_path, capsys):
    assert main(["plot", str(folder), "--x", "tau"]) == 2
    assert "did you mean 'tau0'" in capsys.readouterr().err
    single = shutil.copytree(OLDER / "own_model", tmp_path / "single")
    assert main(["plot", str(single), "--reference", "newton"]) == 2
    assert "--reference are for the folder of several runs" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.toml", "index.jsonl"):
        (copy / name).write_bytes((folder / name).read_bytes())
    (copy / "cells").symlink_to(folder / "cells")
    (copy / "figures").write_text("a file in the way")
    assert main(["plot", str(copy)]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_the_axis_is_called_by_its_label(folder):
    assert load_sweep(folder)["tau0"].attrs["long_name"] == "initialisation scale"
