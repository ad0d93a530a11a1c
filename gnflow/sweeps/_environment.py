"""The environment of a worker process: double precision, its share of the cores, the cache of compiled programs."""

import os
import re
from pathlib import Path

from .._core import SHORTEST_COMPILATION

# Libraries read these variables when they are loaded, so they must be set before the process starts. PJRT_NPROC is the size of
# XLA's own thread pool on the CPU.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PJRT_NPROC")
_SINGLE_THREAD = "--xla_cpu_multi_thread_eigen"


def worker_settings(threads: int, cache: Path | None) -> dict[str, str]:
    """Environment variables of a worker.

    **Arguments:**

    - `threads`: the number of threads that the worker may use, so that all workers together do not use more cores than exist.
    - `cache`: the folder of compiled programs, or None.
    """
    settings = {name: str(threads) for name in _THREADS}
    flags = re.sub(rf"{_SINGLE_THREAD}=\S+", "", os.environ.get("XLA_FLAGS", "")).split()
    settings["XLA_FLAGS"] = " ".join([*flags, f"{_SINGLE_THREAD}={str(threads > 1).lower()}"])
    settings["JAX_ENABLE_X64"] = "1"
    # If several processes share an accelerator, none may reserve its whole memory at the start.
    settings["XLA_PYTHON_CLIENT_PREALLOCATE"] = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if cache is not None:
        settings["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(SHORTEST_COMPILATION)
    return settings


def worker_environment(threads: int, cache: Path | None) -> dict[str, str]:
    """The whole environment of a worker on this machine. The arguments are those of `worker_settings`."""
    environment = {**os.environ, **worker_settings(threads, cache)}
    if cache is None:
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    return environment
