"""What is shown while cells are computed: one bar for all of them, or a line for each run, which has its own bar."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ..config import RunSpec


class CellProgress:
    """Shows cells done and failed, the rate and the time left; or a line for each run.

    **Arguments:**

    - `cells`: all cells.
    - `finished`: the records of cells that were finished before, by content hash.
    - `pending`: the other cells.
    - `visible`: whether to show anything.
    - `in_lines`: whether to show a line for each run in the place of the bar.
    """

    def __init__(
        self,
        cells: Sequence[RunSpec],
        finished: Mapping[str, Mapping[str, Any]],
        pending: Collection[RunSpec],
        visible: bool,
        in_lines: bool,
    ):
        self.failed = sum(bool(record["failed"]) for record in finished.values())
        self._labels = [cell.label for cell in cells] if visible and in_lines else []
        self._bar = tqdm(
            total=len(cells),
            initial=len(finished),
            unit="cell",
            desc="cells",
            smoothing=0.1,
            dynamic_ncols=True,
            disable=not visible or in_lines,
        )
        self._bar.set_postfix_str(f"{self.failed} failed", refresh=False)
        waiting = {cell.label for cell in pending}
        for label in self._labels:
            if label not in waiting:
                self._say(label, "finished before")

    def start(self, cell: RunSpec) -> None:
        """A cell is about to be started."""
        if self._labels:
            self._say(cell.label, "running")

    def update(self, record: Mapping[str, Any]) -> None:
        """A cell is finished, with this record."""
        self.failed += bool(record["failed"])
        self._bar.set_postfix_str(f"{self.failed} failed", refresh=False)
        self._bar.update()

    def skip(self) -> None:
        """A cell was finished by another process."""
        self._bar.update()

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.close()

    def _say(self, label: str, state: str) -> None:
        print(f"[{self._labels.index(label) + 1}/{len(self._labels)}] {label}: {state}", file=sys.stderr)
