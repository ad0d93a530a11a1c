"""The verb `gnflow verify` on folders of runs and on single ones."""

import json

import pytest
from theory.runs import slowed

import gnflow as gn
from gnflow.cli import main

CONFIG = """
[problem]
kind = "teacher_student"
n_train = 4
n_test = 4
input_dim = 2

[model]
kind = "mean_field"
width = 16

[flows.newton]
kind = "gauss_newton"

[integration]
rtol = 1e-6

[stop]
relative_loss = 1e-2

[variants.large]
"model.init_scale" = 1.0

[variants.larger]
"model.init_scale" = 2.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("verify")
    (path / "config.toml").write_text(CONFIG)
    out = path / "runs"
    assert main(["run", str(path / "config.toml"), "--out", str(out), "--quiet"]) == 0
    return out


def test_a_folder_of_runs(folder, capsys, tmp_path):
    code = main(["verify", str(folder), "--theorem", "sandwich", "--out", str(tmp_path / "found")])
    assert code == 0
    output = capsys.readouterr()
    assert "[2/2] larger/newton/seed-0" in output.err
    lines = output.out.splitlines()
    assert lines[0].split() == ["run", "theorem", "verdict", "because"]
    for line, label in zip(lines[2:4], ("large/newton/seed-0", "larger/newton/seed-0"), strict=True):
        assert line.startswith(label)
        assert " holds " in line
        place = tmp_path / "found" / label
        (certificate,) = json.loads((place / "certificates.json").read_text())
        assert certificate["verdict"] == "holds"
        assert {check["met"] for check in certificate["checks"]} == {True}
        assert "| sandwich | holds |" in (place / "certificates.md").read_text()
        assert (place / "sandwich.png").stat().st_size > 10_000
    assert not (folder / "certificates").exists()


def test_a_single_run_and_a_violated_theorem(folder, capsys, tmp_path):
    slowed(gn.load(folder / "runs" / "large" / "newton" / "seed-0"), 0.9).save(tmp_path / "slow")
    assert main(["verify", str(tmp_path / "slow"), "--theorem", "sandwich", "--full", "--quiet"]) == 1
    output = capsys.readouterr()
    assert output.err == ""
    assert "violated" in output.out
    assert "sigma_min > 0 along the run" in output.out
    assert (tmp_path / "slow" / "certificates" / "slow" / "certificates.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--theorem", "sandwhich"], "did you mean 'sandwich'"), ([], "holds no runs")],
)
def test_bad_input(arguments, message, capsys, tmp_path):
    assert main(["verify", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
