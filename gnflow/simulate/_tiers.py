"""Which solver takes the next steps, in a run that may change its solver along the way."""

import dataclasses
import math
from typing import NamedTuple

from ..solvers import SolverChoice

# Steps after which a successor is compared with the solver before it. By then its own error control sets their length.
_TRIAL = 5
# The factor by which the work of a step has to grow before a successor that was worse is tried again.
_LATER = 3.0
# A successor is worse if it gets less far by this factor. A smaller one would be unfair: its steps may still grow.
_WORSE = 2.0


class Phase(NamedTuple):
    """A part of an integration with one solver.

    **Attributes:**

    - `chosen`: the solver.
    - `begins`: the flow time at which it begins.
    - `num_steps`: the number of its steps.
    """

    chosen: SolverChoice
    begins: float
    num_steps: int


class _Pace(NamedTuple):
    """The length of a step relative to the flow time (`gain`), and its work in `velocities`."""

    gain: float
    velocities: float

    @property
    def speed(self) -> float:
        return self.gain / self.velocities


@dataclasses.dataclass(frozen=True)
class Tiers:
    """The solvers of an integration that changes them.

    The successor takes over after a step that took too many velocities or that stability has limited for some time, but only
    once the run has done enough work to justify the compilation of another program. A successor on trial stays unless after a
    few steps it gets less than half as far for the same work. Then the solver before it returns, and the successor is tried
    again when a step takes three times as much work. Decisions rest on counts and flow times alone, never on wall time, so
    that a run does not depend on how busy the machine is.

    **Attributes:**

    - `chosen`: the solver of the next steps.
    - `past`: the phases before the present one.
    - `begins`, `steps_before`: the flow time and the number of steps at which the present phase began.
    - `before`: the solver of the last phase.
    - `rival`: the pace of that solver, as long as the present one is on trial.
    """

    chosen: SolverChoice
    past: tuple[Phase, ...] = ()
    begins: float = 0.0
    steps_before: int = 0
    before: SolverChoice | None = None
    rival: _Pace | None = None

    @property
    def most_velocities(self) -> float:
        """The number of velocities in a step above which `following` has to be asked; infinite without such a limit."""
        change = self.chosen.change
        if change is None or change.successor_velocities is None or change.share is None:
            return math.inf
        return change.share * change.successor_velocities

    @property
    def judged_at(self) -> float:
        """The number of steps after which `following` has to be asked in any case."""
        return math.inf if self.rival is None else float(self.steps_before + _TRIAL)

    def phases(self, num_steps: int) -> tuple[Phase, ...]:
        """All phases, after `num_steps` steps of the run."""
        return (*self.past, Phase(self.chosen, self.begins, num_steps - self.steps_before))

    def following(
        self, time: float, num_steps: int, length: float, velocities: int, taken: int, is_limited: bool = False
    ) -> "Tiers":
        """These tiers, or those with another solver that goes on from here.

        **Arguments:**

        - `time`, `num_steps`: the flow time and the number of steps so far.
        - `length`: the length of the last accepted step of this phase, 0 if none was accepted.
        - `velocities`: the velocities that the last step took, for a solver that has a successor.
        - `taken`: the velocities that the run has taken.
        - `is_limited`: whether stability has limited the last steps.
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
        if length > 0:
            got = (
                f"the steps of {self.chosen.name!r} got {rival.speed / here.speed:.2g} times less far for the same work"
            )
        else:  # the error control has refused each of them
            got = f"none of the first {_TRIAL} steps of {self.chosen.name!r} was accepted"
        later = None if change.share is None else change._replace(share=_LATER * change.share)
        return self._with(self.before._replace(reason=got, change=later), time, num_steps)

    def _with(self, chosen: SolverChoice, time: float, num_steps: int, rival: _Pace | None = None) -> "Tiers":
        return Tiers(chosen, self.phases(num_steps), time, num_steps, self.chosen, rival)
