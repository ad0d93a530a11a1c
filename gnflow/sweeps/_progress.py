"""What is shown while cells are computed: a bar for all of them, or a line for each run, which has a bar of its own."""

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from tqdm import tqdm

from ..config import RunSpec


class CellProgress(Protocol):
    """Told what becomes of cells."""

    def start(self, cell: RunSpec) -> None:
        """A cell is about to be started."""

    def update(self, record: dict[str, Any]) -> None:
        """One more cell is finished, with this record."""

    def skip(self) -> None:
        """One more cell was finished by another process."""

    def close(self) -> None:
        """Leave the last state on the screen."""


class SweepProgress(CellProgress):
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


class RunLines(CellProgress):
    """A line for each run.

    **Arguments:** `cells`: all; `pending`: those that are to be run; `visible`: False for no lines.
    """

    def __init__(self, cells: Sequence[RunSpec], pending: Sequence[RunSpec], visible: bool):
        self._labels = [cell.label for cell in cells] if visible else []
        for label in self._labels:
            if label not in {cell.label for cell in pending}:
                self._say(label, "finished before")

    def start(self, cell: RunSpec) -> None:
        """A run is about to be started."""
        if self._labels:
            self._say(cell.label, "running")

    def _say(self, label: str, state: str) -> None:
        print(f"[{self._labels.index(label) + 1}/{len(self._labels)}] {label}: {state}", file=sys.stderr)
