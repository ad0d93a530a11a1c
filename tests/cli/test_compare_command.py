"""gnflow compare: one table and one figure over runs of several folders."""

import math
import re
import sys

import jax
import numpy as np
import pandas as pd
import pytest
from config.own_module import NAME, TABLE, TEXT, as_in_a_new_process, write
from PIL import Image
from tiny_runs import PROBLEM_MODEL_FLOW

import gnflow as gn
from gnflow.cli import main
from gnflow.config import _built
from gnflow.sweeps import time_to_level

CONFIG = (
    "problem_seed = 0\nmodel_seeds = [0, 1, 2]\n"
    + PROBLEM_MODEL_FLOW
    + """
[flows.adam]
kind = "gradient"
mobility = 1.0
integration = { method = "iterate", optimiser = { kind = "adam", learning_rate = 0.1 }, num_steps = 30 }

[integration]
method = "iterate"
step_size = 0.5
num_steps = 40
"""
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Kept trajectories, a sweep of cells alone, one on another problem, and a run that a script saved."""
    place = tmp_path_factory.mktemp("compared")
    (place / "study.toml").write_text(CONFIG)
    gn.sweep(place / "study.toml", place / "kept", keep_trajectories=True)
    for name, change in (("cells", "model.width=7"), ("other", "problem.n_train=6")):
        options = ["--set", change, "--set", "model_seeds=[1]", "--engine", "serial", "--quiet"]
        assert main(["sweep", str(place / "study.toml"), "--out", str(place / name), *options]) == 0
    run = gn.load(place / "kept/runs/base/descent/seed-0")
    model = gn.models.MeanFieldNetwork(2, 6, key=jax.random.key(9))
    gn.iterate(run.problem, model, run.flow, step_size=0.5, num_steps=20).save(place / "script")
    return place


def compared(capsys, *arguments):
    code = main(["compare", *map(str, arguments)])
    output = capsys.readouterr()
    assert code == 0, output.err
    lines = output.out.splitlines()
    # A path is not cut, so that it can be copied.
    assert max(len(line) for line in lines if " files in " not in line) <= 80
    return lines


def numbers_of(lines, heading, run):
    """The cells of a run in the table under a heading."""
    below = lines[next(place for place, line in enumerate(lines) if line.startswith(heading)) :]
    return next(line for line in below if line.split()[:1] == [str(run)]).split()[2:]


def test_the_tables_hold_the_medians_of_the_runs(folders, capsys, tmp_path):
    lines = compared(capsys, folders / "kept", folders / "cells", "--out", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert table.name.unique().tolist() == ["kept/descent", "kept/adam", "cells/descent", "cells/adam"]
    runs = [gn.load(folders / f"kept/runs/base/descent/seed-{seed}").data for seed in range(3)]
    mine = table[table.run == 1].set_index(["quantity", "at"]).value
    final = np.median([run.train_loss[-1] for run in runs])
    assert mine["train_loss at the end", 20.0] == pytest.approx(final, rel=1e-12)
    # Step 20 of size 0.5 is at flow time 10.
    assert mine["test_loss at time", 10.0] == pytest.approx(np.median([run.test_loss[20] for run in runs]), rel=1e-12)
    best = table[(table.run == 1) & (table.quantity == "best_test_loss")].value.item()
    assert best == np.median([run.test_loss.min() for run in runs])
    assert numbers_of(lines, "lowest losses along the run", 1)[0] == f"{best:.2e}"
    for level in table[(table.run == 1) & (table.quantity == "time to train_loss")]["at"]:
        times = [time_to_level(run.flow_time.to_numpy(), run.train_loss.to_numpy(), level) for run in runs]
        assert mine["time to train_loss", level] == pytest.approx(np.median(times), rel=1e-12)
        reached = [
            np.exp(np.interp(t, run.flow_time, np.log(run.test_loss))) if np.isfinite(t) else np.nan
            for t, run in zip(times, runs, strict=True)
        ]
        np.testing.assert_allclose(mine["test_loss at train_loss", level], np.median(reached), rtol=1e-9)
    assert numbers_of(lines, "# run", 1) == [
        "3",
        "step*size",
        "20",
        "40",
        f"{final:.2e}",
        *numbers_of(lines, "# run", 1)[5:],
    ]
    assert numbers_of(lines, "training loss at a common time", 1)[0] == format(mine["train_loss at time", 1.0], ".2e")


def test_at_the_lowest_common_loss_every_run_has_a_time(folders, capsys, tmp_path):
    compared(capsys, folders / "kept", folders / "cells", "--out", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    lowest = curves.groupby(["run", "seed"]).train_loss.min().max()
    times = table[table.quantity == "time to train_loss"]
    everywhere = [level for level, rows in times.groupby("at") if np.all(np.isfinite(rows.value))]
    assert min(everywhere) == pytest.approx(lowest, rel=1e-12)


def test_each_clock_is_named(folders, capsys):
    lines = compared(capsys, folders / "kept")
    assert numbers_of(lines, "# run", 1)[1] == "step*size"
    assert numbers_of(lines, "# run", 2)[1] == "steps"
    text = " ".join(" ".join(lines).split())
    assert "steps times step size, which is flow time" in text
    assert "the number of steps of an optimiser" in text


def test_differences_of_configuration(folders, capsys, tmp_path):
    lines = compared(capsys, folders / "kept", folders / "cells", "--only", "descent", "--out", tmp_path / "out")
    assert lines[lines.index("differences of configuration") + 1] == "model.width: 6 (run 1); 7 (run 2)"
    assert pd.read_csv(tmp_path / "out" / "configuration.csv").to_dict("records") == [
        {"setting": "model.width", "1 kept": 6, "2 cells": 7}
    ]
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    run = gn.load(folders / "kept/runs/base/descent/seed-2").data
    mine = curves[(curves.run == 1) & (curves.seed == 2)]
    np.testing.assert_array_equal(mine.train_loss, run.train_loss)
    np.testing.assert_array_equal(mine.time, run.flow_time)


def test_different_problems_are_compared_apart(folders, capsys, tmp_path):
    lines = compared(capsys, folders / "kept", folders / "other", "--only", "descent", "--out", tmp_path / "out")
    assert "They are on 2 different problems" in lines[1]
    headings = [line for line in lines if line.startswith("problem ")]
    assert len(headings) == 2
    assert "x_train (5, 2)" in headings[0]
    assert "x_train (6, 2)" in headings[1]
    assert "problem.n_train: 5 (run 1); 6 (run 2)" in lines
    figures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert figures == ["comparison-problem-1.png", "comparison-problem-2.png"]
    assert pd.read_csv(tmp_path / "out" / "comparison.csv").groupby("problem").run.nunique().tolist() == [1, 1]


def test_runs_on_the_problems_that_all_have_are_compared(folders, capsys, tmp_path):
    (tmp_path / "own.toml").write_text(CONFIG.replace("problem_seed = 0\nmodel_seeds = [0, 1, 2]", "seeds = [0, 1]"))
    gn.sweep(tmp_path / "own.toml", tmp_path / "own", engine="serial")
    lines = compared(capsys, folders / "kept", tmp_path / "own", "--only", "descent")
    # Seed 0 draws the same problem in both, and seed 1 another one.
    assert numbers_of(lines, "# run", 1)[0] == "3"
    assert numbers_of(lines, "# run", 2)[0] == "1"
    assert any(line.startswith("1 runs are left out: not every group has their problem") for line in lines)
    assert "problem_seed: 0 (run 1); 'that of the run' (run 2)" in lines


def test_a_run_of_a_script_is_compared_by_its_objects(folders, capsys):
    runs = [folders / f"kept/runs/base/descent/seed-{seed}" for seed in (0, 1)]
    lines = compared(capsys, *runs, folders / "script")
    assert numbers_of(lines, "# run", 1)[0] == "2"
    assert any(line.startswith("settings.num_steps: 40 (run 1); 20 (run 2)") for line in lines)
    assert not any("They are on" in line for line in lines)
    mixed = compared(capsys, folders / "cells", folders / "script", "--only", "s")
    assert any(line.startswith("initial_model.hidden_weight: 'float64 (7, 2)'") for line in mixed)
    assert any(line.startswith("initial_model (checksum): ") for line in mixed)


def test_the_figure_is_legible(folders, capsys, tmp_path):
    compared(capsys, folders / "kept", folders / "cells", "--out", tmp_path / "out")
    with Image.open(tmp_path / "out" / "comparison.png") as image:
        assert image.width == 748  # a column of 3.4 inches at 220 dots an inch
        assert image.height > 800


def test_parts_of_ones_own_are_compared_without_an_import_unless_their_problem_is_one(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_built, "_kept", type(_built._kept)())
    write(tmp_path)
    axes = {"power": {"path": "flows.mine.power", "values": [0.25, 0.5]}}
    plain = {"kind": "teacher_student", "n_train": 5, "n_test": 5, "input_dim": 2}
    with as_in_a_new_process():
        gn.sweep({**TABLE, "problem": plain, "name": "plain", "axes": axes}, "plain", engine="serial")
        gn.sweep({**TABLE, "name": "own", "axes": axes}, "own", engine="serial")
    _built._kept.clear()
    with as_in_a_new_process():
        file = write(tmp_path, text="raise RuntimeError('imported')")
        lines = compared(capsys, "plain")
        assert main(["compare", "own"]) == 2
        assert "2 are left out for the reasons above" in capsys.readouterr().err
        assert main(["compare", "own", "--import", NAME]) == 2
        refused = capsys.readouterr().err
        assert f"{NAME} has the digest" in refused
        assert f"Restore {file}" in refused
        assert NAME not in sys.modules
    assert lines[lines.index("differences of configuration") + 1] == "flow.power: 0.25 (run 1); 0.5 (run 2)"
    with as_in_a_new_process():
        write(tmp_path, text=TEXT + "# a comment\n")
        digest = refused_digest(capsys, "own")
        lines = compared(capsys, "own", "plain", "--import", f"./{NAME}.py", "--accept-digest", digest)
    assert lines[0] == "4 runs of 2 folders"
    assert any(line.startswith("They are on 2 different problems") for line in lines)


def refused_digest(capsys, folder):
    """The digest that is to be accepted, from the message that refuses it."""
    assert main(["compare", folder, "--import", NAME]) == 2
    return re.findall(r"give --accept-digest (\w+)", capsys.readouterr().err)[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"runs to compare: 0, in no folder; expected 2 to 40"),
        (["script"], r"runs to compare: 1, in .*script; expected 2 to 40.*name another folder"),
        (["kept", "--only", "newton"], r"runs to compare with 'newton' in their name: 0"),
        (["kept", "kept"], r"the run kept/base/descent, seed 0, is given twice"),
        (["kept", "kept/runs/base/descent/seed-1"], r"the run kept/base/descent, seed 1, is given twice"),
        (["kept", "none"], r"none holds no runs"),
    ],
)
def test_what_is_wrong_is_named(folders, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folders)
    assert main(["compare", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_times_to_levels():
    times, values = np.array([0.0, 1.0, 3.0]), np.array([1.0, 1e-1, 1e-3])
    assert time_to_level(times, values, 1.0) == 0.0
    assert time_to_level(times, values, 1e-2) == pytest.approx(2.0)
    assert time_to_level(times, values, 1e-4) == math.inf
    assert time_to_level(times, np.array([math.nan, 1e-1, 0.0]), 1e-1) == 1.0
    assert 1.0 < time_to_level(times, np.array([1.0, 1e-1, 0.0]), 1e-2) < 1.1


def test_error_functionals_are_compared(capsys, tmp_path):
    """At the end, at common times and at common losses, and under their own names."""
    (tmp_path / "equation.toml").write_text(
        """
[problem]
kind = "poisson"
points_per_axis = 2

[model]
kind = "mlp"
width = 4
depth = 1
activation = "tanh"

[integration]
method = "iterate"
num_steps = 20

[flows.short]
kind = "gradient"
integration = { step_size = 0.001 }

[flows.long]
kind = "gradient"
integration = { step_size = 0.003 }
"""
    )
    gn.sweep(tmp_path / "equation.toml", tmp_path / "runs", keep_trajectories=True)
    lines = compared(capsys, tmp_path / "runs", "--out", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    runs = [gn.load(tmp_path / f"runs/runs/base/{name}/seed-0").data for name in ("short", "long")]
    for number, run in enumerate(runs, start=1):
        mine = table[table.run == number].set_index(["quantity", "at"]).value
        end = float(run.relative_l2[-1])
        assert mine["relative_l2 at the end", float(run.flow_time[-1])] == end
        assert numbers_of(lines, "error functionals at the end", number)[1] == f"{end:.2e}"
        np.testing.assert_array_equal(curves[curves.run == number].relative_l2, run.relative_l2)
        at = mine.loc["relative_l2 at train_loss"]
        times = mine.loc["time to train_loss"]
        assert len(at) > 0
        for level, error in at.items():
            inside = np.interp(times[level], run.flow_time, np.log(run.relative_l2))
            assert error == pytest.approx(np.exp(inside), rel=1e-9)
