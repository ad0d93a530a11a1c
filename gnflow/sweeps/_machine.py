"""How many cores and how much memory this process may use."""

import os
from pathlib import Path

_GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")  # version 2: the limits of the container or the job that we are in


def num_cores() -> int:
    """Cores this process may use: those it is bound to, fewer where a container or a job has a smaller share of time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        bound = min(bound, max(1, int(quota) // int(period)))
    return bound


def available_memory_gib() -> float:
    """Memory in GiB that programs can still get: what the system reports as available, within the container's limit."""
    lines = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines())
    if "MemAvailable" in lines:
        available = int(lines["MemAvailable"].split()[0]) * 1024
    else:  # not Linux: half of what is installed
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    limit, used = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        available = min(available, max(0, int(limit) - int(used)))
    return available / _GIB


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
