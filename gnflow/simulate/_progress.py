"""A progress bar in decades of the training loss."""

import contextlib
import math
import threading
import time

from tqdm import tqdm

from .stop import AbstractStopRule, RelativeLoss

_BEAT = 0.5  # seconds between two updates of the clock while nothing else changes


class ProgressBar:
    """Shows by how many decades the training loss has fallen, with flow time and steps.

    Until the first step it says "compiling". A thread updates the clock, so that it runs on while the compiler or a compiled
    program is busy.

    **Arguments:**

    - `rules`: the run's stop rules. The bar ends at the largest tolerance of a `RelativeLoss` among them; without such a rule
      it has no end.
    - `unit`: what the time of the run counts, "flow time" or "step".
    """

    def __init__(self, rules: tuple[AbstractStopRule, ...], unit: str):
        decades = [-math.log10(float(rule.tolerance)) for rule in rules if isinstance(rule, RelativeLoss)]
        self._first_loss, self._moves = math.nan, False
        self._unit = unit
        self._bar = tqdm(
            desc="compiling",
            total=round(min(decades), 2) if decades else None,
            unit="decade",
            bar_format="{desc} |{bar}| {n:.1f}/{total:.1f} decades{postfix} [{elapsed}<{remaining}]"
            if decades
            else "{desc} {n:.1f} decades{postfix} [{elapsed}]",
            dynamic_ncols=True,
        )
        self._closed = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def begin(self, first_loss: float) -> None:
        """Count the decades from the training loss at the start."""
        self._first_loss = first_loss

    def update(self, reached: float, loss: float, steps: int) -> None:
        """Show the state after `steps` steps, at the flow time or step `reached`."""
        if not self._moves:
            self._bar.start_t = time.time()  # the time of compiling would distort the estimate of what is left
        self._moves = True
        if loss > 0 and self._first_loss > 0 and math.isfinite(loss):
            decades = max(0.0, -math.log10(loss / self._first_loss))
            self._bar.n = decades if self._bar.total is None else min(decades, self._bar.total)
        self._bar.set_description_str(f"loss {loss:.3e}", refresh=False)
        self._bar.set_postfix_str(f"{self._unit} {reached:.4g}, {steps} steps", refresh=False)
        self._bar.update(0)  # redraws at most ten times a second

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        self._clock.join()
        self._bar.leave = self._moves  # a run without a step leaves no bar on the screen
        self._bar.refresh()  # leave the last state on the screen
        self._bar.close()

    def _tick(self) -> None:
        while not self._closed.wait(_BEAT):
            self._bar.refresh()


def progress_bar(
    show: bool, rules: tuple[AbstractStopRule, ...], unit: str
) -> contextlib.AbstractContextManager[ProgressBar | None]:
    """A context with a bar for the run, or with None unless `show`. The other arguments are those of `ProgressBar`."""
    return ProgressBar(rules, unit) if show else contextlib.nullcontext()
