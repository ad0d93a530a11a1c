"""What is shown while cells are computed: a bar for all of them, or a line for each run, which has a bar of its own."""

import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from ..config import RunSpec


class SweepProgress:
    """Shows cells done and failed, the rate, and the time that is left.

    **Arguments:** `total`: number of cells; `done`: how many of them were finished before; `failed`: how many of those failed;
    `visible`: False for no bar.
    """

    def __init__(self, total: int, done: int, failed: int, visible: bool):
        self.failed = failed
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="cell",
            desc="cells",
            smoothing=0.1,
            dynamic_ncols=True,
            disable=not visible,
        )
        self._show()

    def start(self, cell: RunSpec) -> None:
        """A cell is about to be started; the bar counts those that are done."""

    def update(self, record: dict[str, Any]) -> None:
        """One more cell is finished, with this record."""
        self.failed += bool(record["failed"])
        self._show()
        self._bar.update()

    def skip(self) -> None:
        """One more cell was finished by another process."""
        self._bar.update()

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.close()

    def _show(self) -> None:
        self._bar.set_postfix_str(f"{self.failed} failed", refresh=False)


class RunLines:
    """A line for each run.

    **Arguments:** `cells`: all; `finished`: those that were finished before; `visible`: False for no lines.
    """

    def __init__(self, cells: Sequence[RunSpec], finished: Sequence[RunSpec], visible: bool):
        self._cells = list(cells)
        self._visible = visible
        for cell in finished:
            self._say(cell, "finished before")

    def start(self, cell: RunSpec) -> None:
        """A run is about to be started."""
        self._say(cell, "running")

    def skip(self) -> None:
        """A run was finished by another process."""

    def close(self) -> None:
        """Nothing is left open."""

    def _say(self, cell: RunSpec, state: str) -> None:
        if self._visible:
            print(f"[{self._cells.index(cell) + 1}/{len(self._cells)}] {cell.label}: {state}", file=sys.stderr)
