"""The serial engine, which computes cells in this process."""

import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .._core import GnflowError, forget_compiled_programs
from ..config import RunSpec
from ..simulate import RunInterrupted
from ._cell import CellOutcome, outcome_of, outcome_of_error, run_cell
from ._engine import AbstractEngine, Wanted, every_cell


class SerialEngine(AbstractEngine):
    """Computes cells one after another in this process, with its JAX settings and all its cores.

    Nothing protects the process from a cell that kills it. `gnflow.sweep(..., keep_trajectories=True)` and `gnflow run` use it.

    **Arguments:**

    - `checkpoint_of`: returns the folder for the checkpoints of a run until it is finished. If it is given, outcomes carry
      whole trajectories. A run that is interrupted then has an outcome, too, after which the interrupt is raised.
    - `progress`: whether to show a bar for each run.
    """

    def __init__(self, checkpoint_of: Callable[[RunSpec], Path] | None = None, progress: bool = False):
        self._checkpoint_of = checkpoint_of
        self._progress = progress

    def describe(self) -> str:
        """Where the cells run."""
        return "this process"

    def run(self, cells: Sequence[RunSpec], wanted: Wanted = every_cell) -> Iterator[CellOutcome]:
        """Outcomes of the cells as they finish; see `AbstractEngine.run`."""
        for cell in cells:
            if not wanted(cell):
                continue
            if self._checkpoint_of is None:
                yield run_cell(cell)
            else:
                yield from self._with_trajectory(cell, self._checkpoint_of(cell))
            forget_compiled_programs()

    def _with_trajectory(self, cell: RunSpec, checkpoint: Path) -> Iterator[CellOutcome]:
        data_digest = cell.data_digest  # before the run, because the files may change while it lasts
        try:
            trajectory = cell.run(progress=self._progress, checkpoint=checkpoint)
            outcome = outcome_of(cell, trajectory, data_digest=data_digest, keep=True)
        except RunInterrupted as stop:
            yield outcome_of(cell, stop.trajectory, data_digest=data_digest, keep=True)
            raise
        except Exception as error:
            # Whatever goes wrong in one run (memory, an error of the backend), the others should still be computed.
            if isinstance(error, GnflowError):
                print(f"gnflow: {cell.label}: {error}", file=sys.stderr)
            else:
                traceback.print_exc()
            shutil.rmtree(checkpoint, ignore_errors=True)  # a damaged checkpoint may be the cause
            outcome = outcome_of_error(cell, error)
        yield outcome
