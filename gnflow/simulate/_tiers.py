"""Which solver takes the next steps of a run that may change it along the way."""

import math
from typing import NamedTuple

from ..solvers import SolverChoice

# Steps after which a successor is compared with the solver before it: by then their length is its own.
_TRIAL = 5
# By what the work of a step has to grow before a successor that was worse is tried again.
_LATER = 3.0
# How many times less far a successor has to get to be worse: its steps may still grow.
_WORSE = 2.0


class Phase(NamedTuple):
    """A part of an integration: its solver (`chosen`), the flow time at which it `begins`, and the steps that it took."""

    chosen: SolverChoice
    begins: float
    num_steps: int


class _Pace(NamedTuple):
    """How far a step gets, relative to the flow time, and what it takes, in velocities."""

    gain: float
    velocities: float

    @property
    def speed(self) -> float:
        return self.gain / self.velocities


class Tiers:
    """The solvers of an integration, as they change.

    Behind a step that takes more velocities than is good, and not before what the run has taken is worth another program, the
    successor goes on. It stays unless after a few steps it gets less than half as far for the same work; then it is tried
    once more where a step takes three times as much. All that is looked at are counts and flow times: what a run does does not
    depend on how busy the machine is.

    **Attributes:** `chosen`: the solver of the next steps; `past`: the phases before this one.
    """

    def __init__(self, first: SolverChoice):
        self.chosen = first
        self.past: list[Phase] = []
        self._first, self._share = first, 0.0 if first.change is None else first.change.share
        self._begins, self._steps_before = 0.0, 0
        self._rival: _Pace | None = None

    @property
    def most_velocities(self) -> float | None:
        """Behind a step that takes more, `follow` is to be asked; None where nothing changes."""
        change = self.chosen.change
        return None if change is None else self._share * change.successor_velocities

    @property
    def judged_at(self) -> float:
        """The number of steps at which `follow` is to be asked in any case."""
        return math.inf if self._rival is None else float(self._steps_before + _TRIAL)

    def phases(self, num_steps: int) -> tuple[Phase, ...]:
        """All of them, after so many steps."""
        return (*self.past, Phase(self.chosen, self._begins, num_steps - self._steps_before))

    def follow(self, time: float, num_steps: int, length: float, velocities: int, taken: int) -> bool:
        """Whether another solver goes on from here, which is then `chosen`.

        **Arguments:** flow `time` and `num_steps` so far; `length` and `velocities` of the last step; those `taken` in all.
        """
        change, most = self.chosen.change, self.most_velocities
        if change is not None and most is not None:
            if velocities <= most or taken <= change.least_velocities:
                return False
            self._rival = _Pace(length / time, velocities)
            self._go_on_with(change.successor, time, num_steps)
            return True
        if self._rival is None or num_steps < self.judged_at or self._first.change is None:
            return False
        here, rival = _Pace(length / time, self._first.change.successor_velocities), self._rival
        self._rival = None
        if _WORSE * here.speed >= rival.speed:
            return False
        self._share *= _LATER
        reason = (
            f"the steps of {self.chosen.name!r} got {rival.speed / here.speed:.2g} times less far for the same work"
        )
        self._go_on_with(self._first._replace(reason=reason), time, num_steps)
        return True

    def _go_on_with(self, chosen: SolverChoice, time: float, num_steps: int) -> None:
        self.past = list(self.phases(num_steps))
        self.chosen, self._begins, self._steps_before = chosen, time, num_steps
