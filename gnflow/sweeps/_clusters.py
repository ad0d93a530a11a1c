"""Dask clusters: worker processes on this machine, or jobs of a Slurm queue."""

import contextlib
import importlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .._core import ConfigError
from ._environment import worker_environment, worker_settings

_DEATH_TIMEOUT = "60"  # seconds after which a local worker without a scheduler gives up
_PATIENCE = 3.0  # seconds for local workers to end by themselves
# JAX takes seconds to import, and a worker should report that it is ready only after that.
_PRELOAD = ["--preload", "gnflow.sweeps._worker"]
# Options of LocalCluster for workers that it starts itself, and for other uses.
_NOT_OPTIONS = ("n_workers", "threads_per_worker", "processes", "loop", "start", "asynchronous", "ip")
_ANY_PORT = ":0"  # the default port may be used by another sweep
_QUIET = 50  # logging.CRITICAL: gnflow itself reports the death of a worker, with the cell that it had

Cluster = tuple[Any, Callable[[], bool]]


def require(module: str, extra: str) -> Any:
    """An optional module. **Raises:** `ConfigError` that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"this engine needs {module} ({error}); install it with pip install 'gnflow[{extra}]'."
        ) from error


@contextlib.contextmanager
def local_cluster(
    workers: int, threads: int, memory_gib: float, cache: Path | None, options: Mapping[str, Any]
) -> Iterator[Cluster]:
    """A scheduler in this process, and worker processes that are started as a job script would start them.

    **Arguments:**

    - `workers`: the number of workers.
    - `threads`: the number of threads of each worker.
    - `memory_gib`: the memory of each worker in GiB. Its nanny ends a worker that takes more.
    - `cache`: the folder of compiled programs, or None.
    - `options`: options of `distributed.LocalCluster` for its scheduler.

    **Yields:** the cluster, and a function that says whether any worker process still runs.

    **Raises:** `ConfigError` for options that the cluster does not have.
    """
    distributed = require("distributed", "dask")
    known = [name for name in inspect.signature(distributed.LocalCluster).parameters if name not in _NOT_OPTIONS]
    known = [name for name in known if not name.startswith("worker_")]
    for name in options:
        if name not in known:  # LocalCluster would pass it to its own workers, and it starts none here
            raise ConfigError(f"the local Dask cluster has no option {name!r}; it has {', '.join(known)}.")
    settings = {
        "processes": True,
        "dashboard_address": _ANY_PORT,
        "silence_logs": _QUIET,
        "host": "127.0.0.1",
        **options,
    }
    with (
        _no_deaths_allowed(),
        tempfile.TemporaryDirectory(prefix="gnflow-dask-", ignore_cleanup_errors=True) as scratch,
        distributed.LocalCluster(n_workers=0, **settings) as cluster,
    ):
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
        command += ["--nthreads", "1", "--no-dashboard", "--death-timeout", _DEATH_TIMEOUT]
        command += _PRELOAD
        command += ["--memory-limit", f"{memory_gib:.3f}GiB", "--local-directory", scratch]
        environment = worker_environment(threads, cache)
        paths = [path for path in (environment.get("PYTHONPATH"), *sys.path) if path]
        environment["PYTHONPATH"] = os.pathsep.join(paths)  # so that workers import the same gnflow as this process
        # Each worker has its own session: Ctrl-C in the terminal reaches only the engine, and one signal to the process group
        # ends a worker with its nanny.
        processes = [
            subprocess.Popen(
                command,
                env=environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(workers)
        ]
        try:
            yield cluster, lambda: any(process.poll() is None for process in processes)
        finally:
            _end(processes)


@contextlib.contextmanager
def slurm_cluster(
    workers: int, threads: int, memory_gib: float, cache: Path | None, options: Mapping[str, Any]
) -> Iterator[Cluster]:
    """A scheduler in this process and one Slurm job for each worker.

    **Arguments:**

    - `workers`: the number of jobs.
    - `threads`: the number of cores of each job.
    - `memory_gib`: the memory of each job in GiB.
    - `cache`: the folder of compiled programs, or None.
    - `options`: options of `dask_jobqueue.SLURMCluster` (`queue`, `account`, `walltime`, ...). The others come from Dask's
      configuration (jobqueue.yaml).

    **Yields:** the cluster, and a function that always returns True, because jobs that have ended are submitted again.

    **Raises:** `ConfigError` for options that the cluster does not have, or if jobs cannot be submitted.
    """
    jobqueue = require("dask_jobqueue", "slurm")
    exports = [f"export {name}={value!r}" for name, value in worker_settings(threads, cache).items()]
    given = dict(options)
    prologue = [*exports, *given.pop("job_script_prologue", [])]
    arguments = [*_PRELOAD, *given.pop("worker_extra_args", [])]
    settings = {
        # Each job computes one cell at a time with all its cores. With more of Dask's threads it would compute several.
        "cores": 1,
        "processes": 1,
        "job_cpu": threads,
        "memory": f"{memory_gib:.3f}GiB",
        "silence_logs": _QUIET,
        "scheduler_options": {"dashboard_address": _ANY_PORT},
        **given,
        "job_script_prologue": prologue,
        "worker_extra_args": arguments,
    }
    if shutil.which("sbatch") is None:
        raise ConfigError("there is no command sbatch here; start the sweep where Slurm jobs can be submitted.")
    with _no_deaths_allowed():
        try:
            cluster = jobqueue.SLURMCluster(**settings)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"these options make no dask_jobqueue.SLURMCluster: {error}.") from error
        with cluster:
            cluster.scale(jobs=workers)
            yield cluster, lambda: True


@contextlib.contextmanager
def _no_deaths_allowed() -> Iterator[None]:
    """Make Dask report every death of a worker at once. The engine itself counts the deaths for each cell."""
    dask = require("dask", "dask")
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        yield


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End the workers and their nannies."""
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        # Also its children, which stay behind if the nanny is killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
