"""A progress bar in decades of the training loss."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
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
        self._steps = 0
        self._bar = tqdm(
            total=round(min(decades), 2) if decades else None,
            unit="decade",
            bar_format="loss {desc} |{bar}| {n:.1f}/{total:.1f} decades{postfix} [{elapsed}<{remaining}]"
            if decades
            else "loss {desc} {n:.1f} decades{postfix} [{elapsed}]",
            dynamic_ncols=True,
        )

    def update(self, time: float, loss: float) -> None:
        """Show the state after one more step."""
        self._steps += 1
        if loss > 0 and self._first_loss > 0 and math.isfinite(loss):
            decades = max(0.0, -math.log10(loss / self._first_loss))
            self._bar.n = decades if self._bar.total is None else min(decades, self._bar.total)
        self._bar.set_description_str(f"{loss:.2e}", refresh=False)
        self._bar.set_postfix_str(f"{self._unit} {time:.3g}, {self._steps} steps", refresh=False)
        self._bar.update(0)  # redraws at most ten times a second

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.refresh()
        self._bar.close()


# Bars of the runs under way. A compiled program is shared by runs, so it names its bar by a number.
_bars: dict[int, ProgressBar] = {}


@contextmanager
def progress_bar(bar: ProgressBar | None) -> Iterator[Any]:
    """Registers `bar` for the time of a run; the value is its number as an array, or None for no bar."""
    if bar is None:
        yield None
        return
    number = max(_bars, default=0) + 1
    _bars[number] = bar
    try:
        yield jnp.asarray(number)
    finally:
        _bars.pop(number).close()


def report(number: Any, time: Any, loss: Any, accepted: Any) -> None:
    """Called after each step, by the compiled program too."""
    bar = _bars.get(int(number))
    if bar is not None and bool(accepted):
        bar.update(float(time), float(loss))
