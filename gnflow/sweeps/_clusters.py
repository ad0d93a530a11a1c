"""Dask clusters: processes of this machine, a scheduler that runs somewhere, jobs of a Slurm queue."""

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
_PATIENCE = 3.0  # seconds that local workers have to end by themselves
# JAX takes seconds to import; a worker is ready to be given a cell when that is done.
_PRELOAD = ["--preload", "gnflow.sweeps._worker"]
# What LocalCluster has for workers of its own, and for other uses than ours.
_NOT_OPTIONS = ("n_workers", "threads_per_worker", "processes", "loop", "start", "asynchronous", "ip")
_ANY_PORT = ":0"  # the default one may be taken by another sweep
_QUIET = 50  # logging.CRITICAL: deaths of workers are reported by us, with the cell they had

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
    """A scheduler in this process and workers as processes of their own, started as a job script would start them.

    **Arguments:** `memory_gib`: of each worker; one that takes more is ended by its nanny; `options`: of
    `distributed.LocalCluster`, those about its scheduler.

    **Yields:** the cluster, and a function that says whether any worker process still runs.

    **Raises:** `ConfigError` for options that it does not take.
    """
    distributed = require("distributed", "dask")
    known = [name for name in inspect.signature(distributed.LocalCluster).parameters if name not in _NOT_OPTIONS]
    known = [name for name in known if not name.startswith("worker_")]
    for name in options:
        if name not in known:  # LocalCluster would hand it to workers, of which it starts none here
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
        environment["PYTHONPATH"] = os.pathsep.join(paths)  # gnflow is where this process has it
        # Sessions of their own: Ctrl-C in the terminal is for the engine, and a whole worker can be ended by one signal.
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

    **Arguments:** `threads`: cores of each job; `memory_gib`: memory of each job; `options`: of
    `dask_jobqueue.SLURMCluster` (`queue`, `account`, `walltime`, ...); Dask's configuration (jobqueue.yaml) has the others.

    **Yields:** the cluster, and a function that is always true: jobs that have ended are submitted again.

    **Raises:** `ConfigError` for options that it does not take, and where jobs cannot be submitted.
    """
    jobqueue = require("dask_jobqueue", "slurm")
    exports = [f"export {name}={value!r}" for name, value in worker_settings(threads, cache).items()]
    given = dict(options)
    prologue = [*exports, *given.pop("job_script_prologue", [])]
    arguments = [*_PRELOAD, *given.pop("worker_extra_args", [])]
    settings = {
        # One cell at a time in each job, with all of the job's cores: Dask's own threads would run several.
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
    """Every death of a worker is reported at once, so that the engine counts them, for the one cell that was running."""
    dask = require("dask", "dask")
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        yield


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End workers and their nannies."""
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        # Its children too, which a nanny that was killed leaves behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
