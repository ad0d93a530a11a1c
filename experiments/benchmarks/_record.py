"""What every benchmark shares: timing, peak memory, the environment, and where results are stored."""

import datetime
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def peak_memory_gib() -> float:
    """The largest resident memory of this process so far, in GiB (a benchmark runs in a process of its own)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    from gnflow.simulate import versions

    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "versions": versions(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def store(name: str, numbers: dict[str, Any]) -> None:
    """Write the numbers of one benchmark beside their command and environment."""
    RESULTS.mkdir(exist_ok=True)
    command = f"python experiments/benchmarks/run.py {name}"
    record = {"command": command, **numbers, "environment": environment()}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def interleaved_seconds(parts: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median wall time of each part, timed in turn so that a disturbance of the machine meets all of them."""
    import jax

    times: dict[str, list[float]] = {name: [] for name in parts}
    for repeat in range(repeats + 1):
        for name, part in parts.items():
            began = time.perf_counter()
            jax.block_until_ready(part())
            if repeat > 0:  # the first round compiles
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


def table(rows: list[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value:>14}" for name, value in rows)


def aligned(header: list[str], rows: list[list[Any]]) -> str:
    """A table with a header, numbers to four digits, columns aligned to the right."""
    cells = [header, *[[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
