"""A cell as engines see it: its program, its memory, and how many workers died with it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import RunSpec, Source
from ._memory import estimated_memory_gib

_estimates: dict[str, float] = {}  # by program, because an estimate has to make the cell's problem and model


@dataclasses.dataclass(frozen=True)
class Task:
    """A cell to compute.

    **Attributes:**

    - `cell`: the cell.
    - `program`: a text that decides the compiled program. Tasks with equal texts share it.
    - `memory_gib`: the estimated peak memory of the arrays in GiB.
    - `deaths`: the number of workers that died with the task.
    """

    cell: RunSpec
    program: str
    memory_gib: float
    deaths: int = 0

    @property
    def sources(self) -> tuple[Source, ...]:
        """The modules of the user's that a worker has to import for the cell."""
        return tuple(self.cell.sources.values())

    def after_death(self) -> "Task":
        """The task after the death of a worker that had it."""
        return dataclasses.replace(self, deaths=self.deaths + 1)


def tasks_of(cells: Sequence[RunSpec]) -> list[Task]:
    """The cells as tasks, in their order."""
    tasks = []
    for cell in cells:
        program = program_of(cell)
        if program not in _estimates:
            _estimates[program] = estimated_memory_gib(cell)
        tasks.append(Task(cell, program, _estimates[program]))
    return tasks


def largest_first(cells: Sequence[RunSpec]) -> list[RunSpec]:
    """The cells by decreasing memory (and so time), otherwise in their order."""
    return [task.cell for task in sorted(tasks_of(cells), key=lambda task: -task.memory_gib)]


def program_of(cell: RunSpec) -> str:
    """Everything that decides a cell's compiled program, as text.

    Floating-point numbers and the seed are left out, because they change no shape.
    """
    parts = (cell.problem, cell.model, cell.flow, cell.integration, cell.stop, cell.metrics, cell.data_digest)
    return json.dumps(_without_fractions(parts), sort_keys=True)


def _without_fractions(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_fractions(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_fractions(item) for item in value]
    return "number" if isinstance(value, float) else value
