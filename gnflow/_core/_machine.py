"""How many cores and how much memory this process may use."""

import os
from pathlib import Path

from ._errors import GnflowError

_GIB = 2**30
_SMALL = 2**28  # bytes; less is not checked
_CGROUPS = Path("/sys/fs/cgroup")  # one folder for each control group: limits of containers and jobs
_MEMBERSHIP = Path("/proc/self/cgroup")
_MEMORY = "memory"  # a controller, which has its own hierarchy in version 1 of control groups


def num_cores() -> int:
    """Cores that this process may use: those it is bound to, or fewer where a container or a job limits its share."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups(""):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            bound = min(bound, max(1, int(quota) // int(period)))
    return bound


def require_memory(error: type[GnflowError], what: str, num_bytes: float, remedy: str) -> None:
    """Check that `what` fits into the free memory, before it is made.

    **Arguments:**

    - `error`: the class of the error to raise.
    - `what`: what takes the memory, for the message.
    - `num_bytes`: how many bytes it takes at least.
    - `remedy`: a sentence that ends the message.

    **Raises:** `error` with both numbers.
    """
    if num_bytes < _SMALL:
        return
    left = available_memory_gib()
    if num_bytes > left * _GIB:
        raise error(f"{what} would take {num_bytes / _GIB:.3g} GiB, and {left:.3g} GiB are free. {remedy}")


def available_memory_gib() -> float:
    """Memory in GiB that is left to this process: what the system reports as available, within the limits of its groups."""
    lines = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines())
    if "MemAvailable" in lines:
        available = int(lines["MemAvailable"].split()[0]) * 1024
    else:  # not Linux, where nothing is reported: half of what is installed
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    lefts = [_bytes_left(group, "memory.max", "memory.current", "inactive_file") for group in _groups("")]
    lefts += [
        _bytes_left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        for group in _groups(_MEMORY)
    ]
    return min([available, *(left for left in lefts if left is not None)]) / _GIB


def _groups(controller: str) -> list[Path]:
    """The control group of this process and those above it. Each of them sets limits.

    **Arguments:** `controller`: the controller in version 1 of control groups; empty for version 2.
    """
    root = _CGROUPS / controller
    groups = [root]
    for line in _read(_MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            # Inside a container the path may be the one of the host ("/../.."); its own limits are then at the root.
            for part in path.split("/"):
                if part and part != "..":
                    groups.append(groups[-1] / part)
    return groups


def _bytes_left(group: Path, limit_file: str, used_file: str, reclaimable: str) -> int | None:
    """Bytes that a group may still use, including the cache of files that it can drop; None if it has no limit."""
    # Without a limit version 2 writes "max" and version 1 a huge number, which is larger than what the system has.
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
