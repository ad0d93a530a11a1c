"""The command line answers at once: help and version without JAX, and a first line before it."""

import subprocess
import sys

import pytest

import gnflow as gn
from gnflow.cli import main

# JAX is missing for this process, so what is on the screen was printed without it.
WITHOUT_JAX = """
import sys
sys.modules["jax"] = None
from gnflow.cli import main
for verb in ([], ["run"], ["sweep"], ["verify"], ["plot"], ["compare"]):
    try:
        main([*verb, "--help"])
    except SystemExit as ended:
        assert ended.code == 0
assert main(["--version"]) == 0
print([name for name in ("numpy", "scipy", "matplotlib", "xarray", "equinox") if name in sys.modules])
for arguments in (
    *(["run"], ["run", "--quiet"], ["sweep", "some.toml"], ["verify", "there"], ["plot", "there"]),
    ["compare", "one", "other"],
):
    try:
        main(arguments)
    except ImportError:
        continue
    raise AssertionError(f"{arguments} needs no JAX")
"""


def test_what_needs_no_jax():
    done = subprocess.run([sys.executable, "-c", WITHOUT_JAX], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [f"gnflow {gn.__version__}", "[]"]
    assert done.stderr.splitlines() == [
        "gnflow: carrying out the runs of the packaged quick start",
        "gnflow: carrying out the sweep of some.toml",
        "gnflow: checking theorems on the runs in there",
        "gnflow: drawing the figures of there",
        "gnflow: comparing the runs in one, other",
    ]


@pytest.mark.parametrize("quiet", [False, True])
def test_the_line_comes_before_an_error(quiet, tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.toml"), *(["--quiet"] if quiet else [])]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[:-1] == ([] if quiet else [f"gnflow: carrying out the runs of {tmp_path / 'none.toml'}"])
    assert lines[-1].startswith("gnflow: error: there is no file")
