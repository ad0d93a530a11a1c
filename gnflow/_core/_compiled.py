"""Compiled programs that a long-lived process holds, and when to let go of them."""

import gc
from pathlib import Path

import jax

_DEFAULT_LIMIT = 65_530  # Linux's default of vm.max_map_count
_SHARE = 0.3  # of the limit: one more run may add several thousand


def forget_compiled_programs() -> bool:
    """Forget every compiled program if this process comes near its limit of memory maps.

    Each program is mapped into memory in several pieces, and beyond the kernel's limit (65530 maps by default on Linux) the
    compiler dies of a segmentation fault. A process that runs many configurations calls this between them; nothing is done
    where the maps cannot be counted.

    **Returns:** whether the programs were forgotten.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return False
    limit = Path("/proc/sys/vm/max_map_count")
    most = int(limit.read_text()) if limit.exists() else _DEFAULT_LIMIT
    if maps.read_bytes().count(b"\n") < _SHARE * most:
        return False
    jax.clear_caches()
    gc.collect()
    return True
