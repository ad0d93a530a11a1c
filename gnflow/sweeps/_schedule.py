"""Choose the next task for a free worker: one whose program it has already compiled, if memory allows."""

from collections import deque
from collections.abc import Collection, Iterable

from ._engine import Wanted
from ._task import Task


class Schedule:
    """The tasks that wait, grouped by compiled program.

    **Arguments:**

    - `tasks`: the tasks, in the order in which they should be started if nothing else matters.
    - `wanted`: called before a task is handed out. It says whether the cell still has to be computed.
    """

    def __init__(self, tasks: Iterable[Task], wanted: Wanted):
        self._groups: dict[str, deque[Task]] = {}
        self._wanted = wanted
        for task in tasks:
            self.put(task)

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups.values())

    def put(self, task: Task) -> None:
        """Add a task at the end of its group."""
        self._groups.setdefault(task.program, deque()).append(task)

    def take(self, own: str | None, others: Collection[str | None], memory_gib: float) -> Task | None:
        """The next task for a worker, or None if none fits into memory.

        A program that the worker has comes first, then one that no other worker has, then the one with most waiting tasks. So
        each program is compiled by as few workers as possible while all of them are busy.

        **Arguments:**

        - `own`: the last program of the worker.
        - `others`: the programs of the other workers.
        - `memory_gib`: the memory that is left.
        """
        while True:
            fitting = [program for program, group in self._groups.items() if group[0].memory_gib <= memory_gib]
            if not fitting:
                return None
            if own in self._groups and own in fitting:
                chosen = own
            else:
                free = [program for program in fitting if program not in others]
                # max returns the first of equal groups, which is the one that should be started first.
                chosen = free[0] if free else max(fitting, key=lambda program: len(self._groups[program]))
            group = self._groups[chosen]
            task = group.popleft()
            if not group:
                del self._groups[chosen]
            if self._wanted(task.cell):
                return task
