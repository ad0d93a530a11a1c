"""A progress bar in cells."""

from typing import Any

from tqdm import tqdm


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
