"""What it takes to begin: importing gnflow against what it stands on, the command line's help, and its first line.

Processor seconds of whole processes, the least of several in turns, with and without the interpreter's own; the disk is warm.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _record import store, table

_REPEATS = 7
# Compiled modules are kept, as they are for users; the first round makes them.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
_PUBLIC_FACE = (
    "import gnflow as gn; gn.Problem, gn.models, gn.losses, gn.flows, gn.damping, gn.metrics, gn.optimisers, gn.solvers, "
    "gn.simulate, gn.iterate"
)
PARTS = {
    "python": ["-c", "pass"],
    "import jax": ["-c", "import jax"],
    "import diffrax": ["-c", "import diffrax"],
    "import gnflow": ["-c", "import gnflow"],
    "gnflow, what a run uses": ["-c", _PUBLIC_FACE],
    "gnflow, every public name": ["-c", "from gnflow import *"],
    "gnflow --version": ["-m", "gnflow", "--version"],
    "gnflow --help": ["-m", "gnflow", "--help"],
    **{f"gnflow {verb} --help": ["-m", "gnflow", verb, "--help"] for verb in ("run", "sweep", "verify", "plot")},
}
VERBS = {
    "gnflow run": ["run"],
    "gnflow sweep": ["sweep", "none.toml"],
    "gnflow verify": ["verify", "."],
    "gnflow plot": ["plot", "."],
}


def processor_seconds(arguments: list[str]) -> float:
    """User and system time of `python ARGUMENTS`."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=_ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"python {' '.join(arguments)} ended with exit code {process.returncode}.")
    return usage.ru_utime + usage.ru_stime


def seconds_to_first_line(arguments: list[str], folder: Path) -> float:
    """Wall time of `gnflow ARGUMENTS` until something is on the screen; the command is then ended."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "gnflow", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=folder, env=_ENVIRONMENT) as process:
        assert process.stderr is not None
        process.stderr.readline()
        seconds = time.perf_counter() - began
        process.kill()
    return seconds


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in PARTS}
    lines: dict[str, list[float]] = {name: [] for name in VERBS}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(_REPEATS + 1):
            for name, arguments in PARTS.items():
                seconds = processor_seconds(arguments)
                if repeat > 0:  # the first round warms the disk
                    times[name].append(seconds)
            for name, arguments in VERBS.items():
                seconds = seconds_to_first_line(arguments, Path(folder))
                if repeat > 0:
                    lines[name].append(seconds)
    least = {name: min(taken) for name, taken in times.items()}
    interpreter = least["python"]
    to_diffrax = {
        name: (least[name] - interpreter) / (least["import diffrax"] - interpreter)
        for name in ("import gnflow", "gnflow, what a run uses", "gnflow, every public name")
    }
    first_line = {name: min(taken) for name, taken in lines.items()}
    store(
        "start_up",
        {
            "repeats": _REPEATS,
            "processor_seconds": least,
            "all_processor_seconds": times,
            "ratio_to_diffrax": to_diffrax,
            "wall_seconds_to_first_line": first_line,
        },
    )
    print(
        table(
            [
                *((f"{name} [s]", f"{seconds:.2f}") for name, seconds in least.items()),
                *((f"{name}, over diffrax", f"{ratio:.2f}") for name, ratio in to_diffrax.items()),
                *((f"{name}, first line after [s]", f"{seconds:.2f}") for name, seconds in first_line.items()),
            ]
        )
    )


if __name__ == "__main__":
    main()
