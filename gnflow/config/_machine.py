"""How many cores and how much memory this process may use."""

import os
from pathlib import Path

_GIB = 2**30
_CGROUPS = Path("/sys/fs/cgroup")  # limits of containers and jobs, a folder for each group
_MEMBERSHIP = Path("/proc/self/cgroup")
_MEMORY = "memory"  # the controller that version 1 has in a hierarchy of its own


def num_cores() -> int:
    """Cores this process may use: those it is bound to, fewer where a container or a job has a smaller share of time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups(""):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            bound = min(bound, max(1, int(quota) // int(period)))
    return bound


def available_memory_gib() -> float:
    """Memory in GiB that programs can still get: what the system reports as available, within every group's limit."""
    lines = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines())
    if "MemAvailable" in lines:
        available = int(lines["MemAvailable"].split()[0]) * 1024
    else:  # not Linux: half of what is installed
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    lefts = [_left(group, "memory.max", "memory.current", "inactive_file") for group in _groups("")]
    lefts += [
        _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        for group in _groups(_MEMORY)
    ]
    return min([available, *(left for left in lefts if left is not None)]) / _GIB


def _groups(controller: str) -> list[Path]:
    """The group this process is in and those above it, each of which sets limits.

    **Arguments:** `controller`: of version 1; empty for version 2.
    """
    root = _CGROUPS / controller
    groups = [root]
    for line in _read(_MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            # A container may see the path from outside ("/../.."), and has its own limits at the root.
            for part in path.split("/"):
                if part and part != "..":
                    groups.append(groups[-1] / part)
    return groups


def _left(group: Path, limit_file: str, used_file: str, reclaimable: str) -> int | None:
    """Bytes that a group may still use, the cache of files that it can drop included; None without a limit."""
    limit, used = _read(group / limit_file), _read(group / used_file)
    if not (limit.isdigit() and used.isdigit()):
        return None
    stat = dict(line.split(" ", 1) for line in _read(group / "memory.stat").splitlines() if " " in line)
    return max(0, int(limit) - max(0, int(used) - int(stat.get(reclaimable, 0))))


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
