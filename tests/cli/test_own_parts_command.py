"""The command line on parts of the user's own: a folder alone imports nothing, `--import` compares the digest first."""

import sys

import pytest
from cli.tiny_runs import THREE_STEPS
from config.own_module import NAME, TEXT, as_in_a_new_process, write

from gnflow.cli import main

CONFIG = f"""
[problem]
kind = "{NAME}:sine"
n_train = 5

[model]
kind = "{NAME}:Network"
width = 4

[flows.mine]
kind = "{NAME}:Normalised"
power = 0.5

{THREE_STEPS}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)
    with as_in_a_new_process():
        assert main(["run", "config.toml", "--out", "out", "--quiet"]) == 0
    with as_in_a_new_process():
        yield tmp_path


def test_verify_and_plot(folder, capsys):
    assert main(["verify", "out", "--theorem", "sandwich"]) == 2
    refused = capsys.readouterr().err
    assert f"its flow and model came from {NAME}, which a folder alone does not import; give --import {NAME}" in refused
    assert "none of the 1 runs in out can be checked, for the reasons above" in refused
    assert main(["plot", "out"]) == 0
    assert "is drawn without what needs its model" in capsys.readouterr().err
    assert NAME not in sys.modules
    assert main(["verify", "out", "--import", NAME, "--theorem", "sandwich"]) == 0
    assert "base/mine/seed-0" in capsys.readouterr().out
    assert main(["plot", "out/runs/base/mine/seed-0", "--import", f"./{NAME}.py"]) == 0
    assert capsys.readouterr().err.count("\n") == 1  # what the command does, and no run is left out


def test_a_changed_module_is_an_error_before_it_is_imported(folder, capsys):
    write(folder, text=TEXT + "\nprint('imported')\n")
    for command in (
        ["verify", "out", "--import", NAME],
        ["plot", "out", "--import", NAME],
        ["run", "config.toml", "--out", "out", "--resume"],
    ):
        assert main(command) == 2
        output = capsys.readouterr()
        assert f"{NAME} has the digest " in output.err
        if command[0] != "run":  # which reads the configuration first, and so imports what it names
            assert NAME not in sys.modules
            assert "imported" not in output.out
    present = output.err.partition("--accept-digest ")[2].split()[0]
    assert main(["verify", "out", "--import", NAME, "--accept-digest", present, "--theorem", "sandwich"]) == 0
    assert "imported" not in capsys.readouterr().out  # it was, by the last command before


def test_the_file_of_a_module_elsewhere(folder, capsys, monkeypatch):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert main(["plot", "../out", "--import", NAME]) == 2
    assert f"If it is elsewhere, name its file: --import FOLDER/{NAME}.py" in capsys.readouterr().err
    assert main(["plot", "../out", "--import", f"../{NAME}.py"]) == 0
    assert "is drawn without" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--import", "numpy"], f"record no module 'numpy' (their modules are {NAME}); leave --import numpy out"),
        (["--accept-digest", "0123456789"], "--accept-digest is given without --import"),
    ],
)
def test_what_is_no_module_of_the_folder(folder, capsys, arguments, message):
    assert main(["verify", "out", *arguments]) == 2
    assert message in capsys.readouterr().err
