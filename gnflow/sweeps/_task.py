"""A cell as engines see it: what it costs, and how often it has failed to come back."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import RunSpec
from ._memory import estimated_memory_gib

_estimates: dict[str, float] = {}  # by program; an estimate makes the cell's problem and model


@dataclasses.dataclass(frozen=True)
class Task:
    """A cell to be carried out.

    **Attributes:** `cell`; `program`: what decides the compiled program, so that tasks of one text share it; `memory_gib`:
    estimated peak of the arrays; `deaths`: of workers so far that had the task.
    """

    cell: RunSpec
    program: str
    memory_gib: float
    deaths: int = 0

    def after_death(self) -> "Task":
        """The task when a worker that had it has died."""
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
    """The cells that need most memory (and so most time) first, otherwise in their order."""
    return [task.cell for task in sorted(tasks_of(cells), key=lambda task: -task.memory_gib)]


def program_of(cell: RunSpec) -> str:
    """Everything of a cell but its numbers with a fraction and its seed, which change no shape and no compiled program."""
    parts = (cell.problem, cell.model, cell.flow, cell.integration, cell.stop, cell.metrics, cell.data_digest)
    return json.dumps(_without_fractions(parts), sort_keys=True)


def _without_fractions(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_fractions(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_fractions(item) for item in value]
    return "number" if isinstance(value, float) else value
