"""A progress bar in decades of the training loss."""

import contextlib
import math
from typing import Any

from tqdm import tqdm

from .stop import AbstractStopRule, RelativeLoss


class ProgressBar:
    """Shows how many decades the training loss has fallen, of those asked for, with flow time and steps.

    **Arguments:** `first_loss`: the training loss at the start; `rules`: the run's stop rules, the tightest relative loss
    among which is the bar's end; without one the bar has no end; `unit`: what `time` counts.
    """

    def __init__(self, first_loss: float, rules: tuple[AbstractStopRule, ...], unit: str):
        decades = [-math.log10(float(rule.tolerance)) for rule in rules if isinstance(rule, RelativeLoss)]
        self._first_loss = first_loss
        self._unit = unit
        self._bar = tqdm(
            total=round(min(decades), 2) if decades else None,
            unit="decade",
            bar_format="loss {desc} |{bar}| {n:.1f}/{total:.1f} decades{postfix} [{elapsed}<{remaining}]"
            if decades
            else "loss {desc} {n:.1f} decades{postfix} [{elapsed}]",
            dynamic_ncols=True,
        )

    def update(self, time: float, loss: float, steps: int) -> None:
        """Show the state after so many steps."""
        if loss > 0 and self._first_loss > 0 and math.isfinite(loss):
            decades = max(0.0, -math.log10(loss / self._first_loss))
            self._bar.n = decades if self._bar.total is None else min(decades, self._bar.total)
        self._bar.set_description_str(f"{loss:.2e}", refresh=False)
        self._bar.set_postfix_str(f"{self._unit} {time:.3g}, {steps} steps", refresh=False)
        self._bar.update(0)  # redraws at most ten times a second

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.refresh()  # leave the last state on the screen
        self._bar.close()


def progress_bar(
    show: bool, first_loss: Any, rules: tuple[AbstractStopRule, ...], unit: str
) -> contextlib.AbstractContextManager[ProgressBar | None]:
    """A bar for the time of a run, or None if there is none to `show`; arguments as of `ProgressBar`."""
    return ProgressBar(float(first_loss), rules, unit) if show else contextlib.nullcontext()
