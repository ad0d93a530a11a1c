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

    Behind a step that takes more velocities than is good, and not before what the run has taken is worth another program, the
    successor goes on. It stays unless after a few steps it gets less than half as far for the same work; then it is tried
    once more where a step takes three times as much. All that is looked at are counts and flow times: what a run does does not
    depend on how busy the machine is.

    **Attributes:** `chosen`: the solver of the next steps; `past`: the phases before this one; `begins`, `steps_before`: the
    flow time and the number of steps at which this one began; `first`: the solver that the run began with; `share`: of a
    successor's step, that one of its own may take; `rival`: the pace before this phase, as long as it is on trial.
    """

    chosen: SolverChoice
    first: SolverChoice
    share: float
    past: tuple[Phase, ...] = ()
    begins: float = 0.0
    steps_before: int = 0
    rival: _Pace | None = None

    @classmethod
    def beginning_with(cls, chosen: SolverChoice) -> "Tiers":
        """At flow time 0."""
        return cls(chosen, chosen, 0.0 if chosen.change is None else chosen.change.share)

    @property
    def most_velocities(self) -> float:
        """Behind a step that takes more, `following` is to be asked; infinite where nothing changes."""
        change = self.chosen.change
        return math.inf if change is None else self.share * change.successor_velocities

    @property
    def judged_at(self) -> float:
        """The number of steps at which `following` is to be asked in any case."""
        return math.inf if self.rival is None else float(self.steps_before + _TRIAL)

    def phases(self, num_steps: int) -> tuple[Phase, ...]:
        """All of them, after so many steps."""
        return (*self.past, Phase(self.chosen, self.begins, num_steps - self.steps_before))

    def following(self, time: float, num_steps: int, length: float, velocities: int, taken: int) -> "Tiers":
        """The same, or with another solver that goes on from here.

        **Arguments:** flow `time` and `num_steps` so far; `length` and `velocities` of the last step (those of a solver that
        has a successor); `taken`: velocities in all.
        """
        change = self.chosen.change
        if change is not None:
            if velocities <= self.most_velocities or taken <= change.least_velocities:
                return self
            return self._with(change.successor, time, num_steps, rival=_Pace(length / time, velocities))
        if self.rival is None or num_steps < self.judged_at or self.first.change is None:
            return self
        here, rival = _Pace(length / time, self.first.change.successor_velocities), self.rival
        if _WORSE * here.speed >= rival.speed:
            return dataclasses.replace(self, rival=None)
        reason = (
            f"the steps of {self.chosen.name!r} got {rival.speed / here.speed:.2g} times less far for the same work"
        )
        again = self.first._replace(reason=reason)
        return dataclasses.replace(self._with(again, time, num_steps), share=_LATER * self.share)

    def _with(self, chosen: SolverChoice, time: float, num_steps: int, rival: _Pace | None = None) -> "Tiers":
        return dataclasses.replace(
            self, chosen=chosen, past=self.phases(num_steps), begins=time, steps_before=num_steps, rival=rival
        )
