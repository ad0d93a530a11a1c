"""The Dask engine: workers of a cluster."""

import contextlib
import itertools
import math
import os
import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .._core import ConfigError, GnflowError, available_memory_gib, compilation_cache_folder, num_cores
from ..config import RunSpec
from ._cell import WORKER_DIED, CellOutcome, outcome_of_code, outcome_of_error
from ._clusters import Cluster, local_cluster, require, slurm_cluster
from ._engine import AbstractEngine, Wanted, every_cell, require_engine_options
from ._memory import BASE_GIB
from ._task import Task, tasks_of
from ._worker import work

_CLUSTERS = {"local": local_cluster, "slurm": slurm_cluster}
_ADDRESSES = ("tcp://", "tls://")
_SHARE_OF_MEMORY = 0.8  # of the machine's available memory, for a local cluster
_SLACK = 1.5  # ratio of a job's memory to the estimate
_SMALLEST_JOB_GIB = 2.0
_TICK = 5.0  # seconds between checks of the cluster while nothing finishes
_CONNECT = 30.0  # seconds to connect to a scheduler


class DaskEngine(AbstractEngine):
    """Computes cells on the workers of a Dask cluster. Each worker has one cell at a time.

    A cell whose worker dies is tried again. Its last attempt runs alone, so that it is not blamed for the memory of another
    cell or a failure of the cluster. Then it is recorded with the code "worker_died". Jobs that end, for instance at their time
    limit, are submitted again.

    **Arguments:**

    - `cluster`: "local" (processes on this machine), "slurm" (jobs, by dask-jobqueue) or the address of a running scheduler
      ("tcp://host:8786"), whose workers need gnflow installed.
    - `workers`: the number of processes or jobs. By default one for each core ("local") or 4 ("slurm").
    - `threads`: the number of cores of each worker. By default cores divided by workers ("local") or 1 ("slurm").
    - `memory_gib`: the memory of each worker in GiB. By default an equal share of the machine's memory ("local") or 1.5 times
      the estimate for the largest cell ("slurm").
    - `compilation_cache`, `retries`: as for `LocalEngine`. A cache in the home folder serves all nodes that share it.
    - `options`: options of `dask_jobqueue.SLURMCluster` (`queue`, `account`, `walltime`, `job_extra_directives`, ...) or of
      `distributed.LocalCluster`. Options in Dask's own configuration (jobqueue.yaml) need not be repeated here.

    A running scheduler has its own number of workers, threads and memory, so these cannot be given for it.

    **Raises:** `ConfigError` for an unknown cluster or numbers out of range.
    """

    def __init__(
        self,
        cluster: str = "local",
        workers: int | None = None,
        threads: int | None = None,
        memory_gib: float | None = None,
        compilation_cache: bool | str | os.PathLike[str] = True,
        retries: int = 2,
        **options: Any,
    ):
        if cluster not in _CLUSTERS and not str(cluster).startswith(_ADDRESSES):
            raise ConfigError(
                f"cluster = {cluster!r}; expected 'local', 'slurm' or the address of a Dask scheduler (tcp://host:port)."
            )
        cache = require_engine_options(workers, memory_gib, retries, compilation_cache, threads=threads)
        if cluster not in _CLUSTERS:
            for name, value in {"workers": workers, "threads": threads, "memory_gib": memory_gib, **options}.items():
                if value is not None:
                    raise ConfigError(f"{name} = {value!r}, but the scheduler at {cluster} has workers of its own.")
        self._cluster = cluster
        self._workers = workers
        self._threads = threads
        self._memory_gib = memory_gib
        self._compilation_cache = cache
        self._retries = retries
        self._options = options

    def describe(self) -> str:
        """The cluster and its size."""
        if self._cluster not in _CLUSTERS:
            return f"the Dask scheduler at {self._cluster}"
        workers, threads = self._sizes()
        return f"a {self._cluster} Dask cluster of {workers} workers, {threads} threads each"

    def run(self, cells: Sequence[RunSpec], wanted: Wanted = every_cell) -> Iterator[CellOutcome]:
        """Outcomes of the cells as they finish; see `AbstractEngine.run`."""
        tasks = tasks_of(cells)
        if not tasks:
            return
        with contextlib.ExitStack() as stack:
            cluster, has_workers = None, lambda: True
            if self._cluster in _CLUSTERS:
                cluster, has_workers = stack.enter_context(self._start(tasks))
            client = stack.enter_context(self._connect(cluster))
            yield from _Run(client, cluster, has_workers, self._sizes()[0], self._retries, tasks, wanted).outcomes()

    def _sizes(self) -> tuple[int, int]:
        """Number of workers and threads of each."""
        if self._cluster == "local":
            workers = num_cores() if self._workers is None else self._workers
            return workers, max(1, num_cores() // workers) if self._threads is None else self._threads
        workers = {"slurm": 4}.get(self._cluster, 1) if self._workers is None else self._workers
        return workers, 1 if self._threads is None else self._threads

    def _start(self, tasks: Sequence[Task]) -> contextlib.AbstractContextManager[Cluster]:
        workers, threads = self._sizes()
        memory = self._memory_gib
        if memory is None and self._cluster == "local":
            memory = _SHARE_OF_MEMORY * available_memory_gib() / workers
        elif memory is None:
            largest = max(task.memory_gib for task in tasks)
            memory = max(_SMALLEST_JOB_GIB, math.ceil(_SLACK * (largest + BASE_GIB)))
        start = _CLUSTERS[self._cluster]
        return start(
            workers,
            threads,
            memory,
            compilation_cache_folder(self._compilation_cache, "compilation_cache"),
            self._options,
        )

    @contextlib.contextmanager
    def _connect(self, cluster: Any) -> Iterator[Any]:
        distributed = require("distributed", "dask")
        address = self._cluster if cluster is None else cluster
        try:
            client = distributed.Client(address, set_as_default=False, timeout=_CONNECT)
        except (OSError, ValueError) as error:
            raise ConfigError(f"there is no Dask scheduler at {address} ({error}).") from error
        with client:
            yield client


class _Run:
    """One run of the engine: the tasks that wait, and those that workers have."""

    def __init__(
        self,
        client: Any,
        cluster: Any,
        has_workers: Callable[[], bool],
        workers: int,
        retries: int,
        tasks: Sequence[Task],
        wanted: Wanted,
    ):
        self._client = client
        self._cluster = cluster
        self._has_workers = has_workers
        self._workers = workers
        self._retries = retries
        self._wanted = wanted
        self._waiting = deque(tasks)
        self._suspects: deque[Task] = deque()  # tasks whose last attempt runs alone
        self._running: dict[Any, Task] = {}
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._names = (f"gnflow-{os.getpid()}-{id(self)}-{number}" for number in itertools.count())

    def outcomes(self) -> Iterator[CellOutcome]:
        """The outcomes of all tasks, as they finish."""
        try:
            while True:
                self._submit()
                if not self._running:
                    return
                try:
                    future = self._finished.get(timeout=_TICK)
                except queue.Empty:
                    self._look_after_cluster()
                    continue
                outcome = self._outcome_of(future, self._running.pop(future))
                self._submit()  # before the outcome is stored, so that workers do not wait for the disk
                if outcome is not None:
                    yield outcome
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                self._client.cancel(list(self._running), force=True)

    def _submit(self) -> None:
        """Give each free worker one task. If more were in its queue, they would share the blame for its death."""
        alone = any(task.deaths >= self._retries > 0 for task in self._running.values())
        slots = 0 if alone else max(self._workers, len(self._client.nthreads()))
        while len(self._running) < slots and (task := self._next()) is not None:
            future = self._client.submit(work, task.cell.to_dict(), task.sources, key=next(self._names), pure=False)
            self._running[future] = task
            future.add_done_callback(self._finished.put)
            if task.deaths >= self._retries > 0:
                return

    def _next(self) -> Task | None:
        while self._waiting or (self._suspects and not self._running):
            task = (self._waiting or self._suspects).popleft()
            if self._wanted(task.cell):
                return task
        return None

    def _outcome_of(self, future: Any, task: Task) -> CellOutcome | None:
        """The outcome of a task that has ended; None if it is to be tried again."""
        distributed = require("distributed", "dask")
        if future.cancelled():
            raise self._lost()
        try:
            return future.result()
        except distributed.KilledWorker as error:
            return self._after_death(task, error)
        except ImportError as error:
            raise GnflowError(
                f"the workers cannot import what a cell needs ({error}); install the same gnflow where they run."
            ) from error
        except Exception as error:
            # Errors of a cell are outcomes, so this one comes from the cluster, for instance a result that was lost on its way.
            return self._after_death(task, error)

    def _after_death(self, task: Task, error: Exception) -> CellOutcome | None:
        """The outcome after the death of a worker or another error of the cluster; None if the task is to be tried again."""
        again = task.after_death()
        if again.deaths > self._retries:
            if not isinstance(error, require("distributed", "dask").KilledWorker):
                return outcome_of_error(again.cell, error)
            message = f"its worker died {again.deaths} times; give each worker more memory"
            return outcome_of_code(again.cell, WORKER_DIED, f"{message} ({error})")
        (self._suspects if again.deaths == self._retries else self._waiting).append(again)
        return None

    def _look_after_cluster(self) -> None:
        """Submit the jobs of lost workers again. **Raises:** `GnflowError` if the scheduler or all workers have gone."""
        if self._client.status in ("closed", "closing"):
            raise self._lost()
        if not self._has_workers():
            raise GnflowError(
                "no worker process of the local Dask cluster is left, and none has said why; the engine 'local' shows what "
                "its workers write. Finished cells are kept."
            )
        if hasattr(self._cluster, "job_script") and len(self._client.nthreads()) < self._workers:
            self._cluster.scale(jobs=self._workers)

    def _lost(self) -> GnflowError:
        return GnflowError(
            "the Dask scheduler has gone; finished cells are kept, and the same command goes on with the rest."
        )
