"""What scripts may hand to gnflow, tried without beartype, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(file, tmp_path):
    command = [sys.executable, "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider", str(HERE / file)]
    return subprocess.run(
        command, env={**os.environ, "JAX_ENABLE_X64": "1"}, capture_output=True, text=True, cwd=tmp_path, check=False
    )


def test_rows(tmp_path):
    """Each kind of input that was once misread, by its message."""
    done = run("rows_python.py", tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]


def test_fuzz(tmp_path):
    """Odd values for any argument of anything public."""
    done = run("fuzz_python.py", tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert {entry.name for entry in tmp_path.iterdir()} <= {".hypothesis"}  # nothing was written
