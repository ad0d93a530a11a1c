"""The page about the user's own data: its script and its configuration run, one after the other, and agree."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd

import gnflow as gn
from gnflow.cli import main

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_script_and_the_configuration_fit_a_csv_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    with contextlib.redirect_stdout(io.StringIO()):
        for code in blocks("python"):
            exec(code, names)
    problem, predicted = names["problem"], np.asarray(names["predicted"])[:, 0]
    # In the units of the file: closer to the measured numbers than their mean is.
    measured = names["patients"]["target"]
    assert predicted.shape == measured.shape
    assert np.mean((predicted - measured) ** 2) < 0.9 * measured.var()
    assert problem.names.inputs == tuple(pd.read_csv("patients.csv").columns[:-1])
    assert names["classes"].names.classes == ("high", "low")

    (configuration,) = blocks("toml")
    Path("patients.toml").write_text(configuration)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["run", "patients.toml", "--out", "runs", "--quiet"]) == 0
    assert "valid." in printed.getvalue()
    data = gn.load("runs").squeeze()
    assert 0 < data.best_validation_loss < data.validation_loss
    run = gn.load("runs/runs/base/gradient_flow/seed-0")
    assert run.problem.names == problem.names
    assert run.problem.input_standardisation is not None
    assert run.best_losses["best_test_loss"] == data.best_test_loss


def test_the_table_is_that_of_the_stored_runs():
    stored = pd.read_csv(ROOT / "experiments" / "own_data" / "results" / "diabetes.csv")
    by_flow = stored.groupby("flow")[["test_loss", "test_loss_at_best_validation", "best_test_loss"]]
    flows = ["gradient_flow", "gauss_newton"]
    mean, spread = by_flow.mean().loc[flows], by_flow.std().loc[flows]
    rows = re.findall(r"^\| (?:at the end|where the val|lowest, sel)[^|]*\| ([^|]*) \| ([^|]*) \|$", TEXT, re.MULTILINE)
    assert rows == [
        tuple(f"{mean.loc[flow, name]:.3f} ({spread.loc[flow, name]:.3f})" for flow in flows) for name in mean.columns
    ]
    pairs = stored.pivot(index="seed", columns="flow")
    assert (pairs["test_loss"]["gauss_newton"] < pairs["test_loss"]["gradient_flow"]).all()
    there = pairs["test_loss_at_best_validation"]
    assert (there["gradient_flow"] < there["gauss_newton"]).sum() == 4
