"""Which solver takes the next steps of a run that may change it along the way."""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Tiers:
    """The solvers of an integration, as they change.

    Behind a step that takes more velocities than is good, or that stability has limited for some time, and not before what the
    run has taken is worth another program, the successor goes on. One that has to show that it gets farther stays unless after
    a few steps it gets less than half as far for the same work; then it is tried once more where a step takes three times as
    much. All that is looked at are counts and flow times: what a run does does not depend on how busy the machine is.

    **Attributes:** `chosen`: the solver of the next steps; `past`: the phases before this one; `begins`, `steps_before`: the
    flow time and the number of steps at which this one began; `before`: the solver of the last phase; `rival`: its pace, as
    long as this one is on trial.
    """

    chosen: SolverChoice
    past: tuple[Phase, ...] = ()
    begins: float = 0.0
    steps_before: int = 0
    before: SolverChoice | None = None
    rival: _Pace | None = None

    @property
    def most_velocities(self) -> float:
        """Behind a step that takes more, `following` is to be asked; infinite where that says nothing."""
        change = self.chosen.change
        if change is None or change.successor_velocities is None or change.share is None:
            return math.inf
        return change.share * change.successor_velocities

    @property
    def judged_at(self) -> float:
        """The number of steps at which `following` is to be asked in any case."""
        return math.inf if self.rival is None else float(self.steps_before + _TRIAL)

    def phases(self, num_steps: int) -> tuple[Phase, ...]:
        """All of them, after so many steps."""
        return (*self.past, Phase(self.chosen, self.begins, num_steps - self.steps_before))

    def following(
        self, time: float, num_steps: int, length: float, velocities: int, taken: int, is_limited: bool = False
    ) -> "Tiers":
        """The same, or with another solver that goes on from here.

        **Arguments:** flow `time` and `num_steps` so far; `length` and `velocities` of the last step (those of a solver that
        has a successor); `taken`: velocities in all; `is_limited`: whether stability has limited the last steps.
        """
        change = self.chosen.change
        if change is not None:
            if taken <= change.least_velocities or not (is_limited or velocities > self.most_velocities):
                return self
            rival = None if change.successor_velocities is None else _Pace(length / time, velocities)
            return self._with(change.successor, time, num_steps, rival)
        if self.rival is None or num_steps < self.judged_at or self.before is None or self.before.change is None:
            return self
        change = self.before.change
        assert change.successor_velocities is not None
        here, rival = _Pace(length / time, change.successor_velocities), self.rival
        if _WORSE * here.speed >= rival.speed:
            return dataclasses.replace(self, rival=None)
        reason = (
            f"the steps of {self.chosen.name!r} got {rival.speed / here.speed:.2g} times less far for the same work"
        )
        later = None if change.share is None else change._replace(share=_LATER * change.share)
        return self._with(self.before._replace(reason=reason, change=later), time, num_steps)

    def _with(self, chosen: SolverChoice, time: float, num_steps: int, rival: _Pace | None = None) -> "Tiers":
        return Tiers(chosen, self.phases(num_steps), time, num_steps, self.chosen, rival)
