"""Which task a free worker is given: one whose program it has compiled already, if memory allows."""

from collections import deque
from collections.abc import Collection, Iterable

from ._engine import Wanted
from ._task import Task


class Schedule:
    """The tasks that wait, grouped by compiled program.

    **Arguments:** `tasks`: in the order in which they should be started, other things being equal; `wanted`: asked before a
    task is given out, whether its cell is still to be computed.
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
        """The next task for a worker, or None if there is none that fits into memory.

        A program that the worker has goes first, then one that no other worker has, then the one with most tasks waiting: so
        each program is compiled on as few workers as keeps all of them busy.

        **Arguments:** `own`: the worker's last program; `others`: those of the other workers; `memory_gib`: that is left.
        """
        while True:
            fitting = [program for program, group in self._groups.items() if group[0].memory_gib <= memory_gib]
            if not fitting:
                return None
            if own in self._groups and own in fitting:
                chosen = own
            else:
                free = [program for program in fitting if program not in others]
                # Python's max takes the first of equals, which is the one that should be started first.
                chosen = free[0] if free else max(fitting, key=lambda program: len(self._groups[program]))
            group = self._groups[chosen]
            task = group.popleft()
            if not group:
                del self._groups[chosen]
            if self._wanted(task.cell):
                return task
