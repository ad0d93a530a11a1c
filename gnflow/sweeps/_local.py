"""The local engine: worker processes on this machine."""

import math
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

from .._core import (
    ConfigError,
    available_memory_gib,
    compilation_cache_folder,
    num_cores,
)
from ..config import RunSpec
from ._cell import WORKER_DIED, CellOutcome, outcome_of_code
from ._engine import AbstractEngine, Wanted, every_cell, require_engine_options
from ._environment import worker_environment
from ._memory import BASE_GIB
from ._schedule import Schedule
from ._serial import SerialEngine
from ._task import Task, tasks_of
from ._worker_process import WorkerDiedError, WorkerProcess

_SHARE_OF_MEMORY = 0.8  # of the available memory, unless a budget is given
_STARTS = 3  # attempts to start a worker


class LocalEngine(AbstractEngine):
    """Computes cells in several processes on this machine.

    Each worker is a process with its share of the cores, so a cell that kills its process (by its memory or a fault of the
    compiler) does not affect the others. It is tried again, and recorded with the code "worker_died" if its workers keep dying.
    A worker preferably gets cells whose compiled program it already has. A cell is started only if its estimated memory fits
    beside the running ones; a cell that is too large for the budget runs alone.

    **Arguments:**

    - `workers`: the number of processes. By default one for each core, or fewer if memory does not suffice. With 1 the cells
      run in this process, as with `SerialEngine`.
    - `memory_gib`: the memory of all workers together in GiB. By default 80% of the memory available when the run begins.
    - `compilation_cache`: whether to keep compiled programs on disk, for the other workers and the next sweep: True (in the
      folder that JAX_COMPILATION_CACHE_DIR names, else in gnflow/compiled in the user's cache), False, or a folder. Only for
      `workers` > 1.
    - `retries`: how often a cell is tried again after its worker died.

    Results are the same to the last bit for the same `workers` on the same machine. The number of threads of a worker, which is
    cores divided by `workers`, decides the order of some sums.

    **Raises:** `ConfigError` for numbers out of range.
    """

    def __init__(
        self,
        workers: int | None = None,
        memory_gib: float | None = None,
        compilation_cache: bool | str | os.PathLike[str] = True,
        retries: int = 2,
    ):
        self._compilation_cache = require_engine_options(workers, memory_gib, retries, compilation_cache)
        self._workers = workers
        self._memory_gib = memory_gib
        self._retries = retries

    @property
    def _in_process(self) -> bool:
        """Whether the cells run in this process."""
        return self._workers == 1

    def describe(self) -> str:
        """The numbers of processes and threads, and the memory."""
        if self._in_process:
            return SerialEngine().describe()
        workers, threads, memory = self._shares()
        return f"{workers} processes on this machine, {threads} threads each, {memory:.1f} GiB together"

    def run(self, cells: Sequence[RunSpec], wanted: Wanted = every_cell) -> Iterator[CellOutcome]:
        """Outcomes of the cells as they finish; see `AbstractEngine.run`."""
        if self._in_process:
            yield from SerialEngine().run(cells, wanted)
        else:
            yield from self._run_in_workers(tasks_of(cells), wanted)

    def _shares(self) -> tuple[int, int, float]:
        """The number of workers, the threads of each, and the memory of all in GiB."""
        cores = num_cores()
        memory = _SHARE_OF_MEMORY * available_memory_gib() if self._memory_gib is None else self._memory_gib
        wished = cores if self._workers is None else self._workers
        workers = max(1, min(wished, int(memory / BASE_GIB))) if self._workers is None else wished
        # Threads follow from the wished number of workers. They decide the last bits of a result, which must not depend on how
        # much memory happens to be free.
        return workers, max(1, cores // wished), memory

    def _run_in_workers(self, tasks: Sequence[Task], wanted: Wanted) -> Iterator[CellOutcome]:
        count, threads, memory = self._shares()
        environment = worker_environment(
            threads, compilation_cache_folder(self._compilation_cache, "compilation_cache")
        )
        schedule = Schedule(tasks, wanted)
        largest = max((task.memory_gib for task in tasks), default=0.0)
        if largest + BASE_GIB > memory:
            print(
                f"gnflow: the largest cell may need {largest + BASE_GIB:.1f} GiB of memory, of {memory:.1f}; it runs alone.",
                file=sys.stderr,
            )
        slots: list[WorkerProcess | None] = [None] * min(count, len(tasks))
        finished: deque[CellOutcome] = deque()
        failed_starts = 0
        try:
            while True:
                _assign(slots, schedule, memory, environment)
                yield from _drain(finished)
                busy = {worker.fileno(): worker for worker in slots if worker is not None and worker.task is not None}
                if not busy:
                    return
                for worker in [busy[number] for number in wait(list(busy)) if isinstance(number, int)]:
                    try:
                        outcome = worker.receive()
                        finished += [] if outcome is None else [outcome]
                        failed_starts = 0
                    except WorkerDiedError as death:
                        task = worker.task
                        assert task is not None
                        worker.close()
                        slots[slots.index(worker)] = None
                        if death.ready:
                            finished += self._after_death(task, str(death), schedule)
                        else:
                            schedule.put(
                                task
                            )  # the task never reached the worker, so this is not a death of the cell's
                            failed_starts += 1
                        if failed_starts == _STARTS:
                            raise ConfigError(
                                f"no worker process can be started ({death}; its own message stands above); workers=1 "
                                "carries the cells out in this process."
                            ) from death
        finally:
            for worker in slots:
                if worker is not None:
                    worker.close()

    def _after_death(self, task: Task, how: str, schedule: Schedule) -> list[CellOutcome]:
        """Put the task of a dead worker back, or give up and return an outcome."""
        again = task.after_death()
        if again.deaths <= self._retries:
            schedule.put(again)
            return []
        message = f"{how}, {again.deaths} times; fewer workers leave more memory to each"
        return [outcome_of_code(again.cell, WORKER_DIED, message)]


def _assign(slots: list[WorkerProcess | None], schedule: Schedule, memory: float, environment: dict[str, str]) -> None:
    """Give every free worker a task, and start workers as needed."""
    for index, worker in enumerate(slots):
        if worker is not None and worker.task is not None:
            continue
        others = [other for other in slots if other is not None and other is not worker]
        running = [other.task for other in others if other.task is not None]
        left = memory - BASE_GIB * (len(others) + 1) - sum(task.memory_gib for task in running)
        task = schedule.take(
            None if worker is None else worker.program,
            {other.program for other in others},
            left if running else math.inf,
        )
        if task is None:
            continue
        if worker is None:
            worker = slots[index] = WorkerProcess(environment)
        worker.start(task)


def _drain(outcomes: deque[CellOutcome]) -> Iterator[CellOutcome]:
    while outcomes:
        yield outcomes.popleft()
