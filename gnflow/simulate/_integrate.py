"""An integration as a loop over compiled segments: what is saved, where it ends, and what is shown meanwhile."""

import dataclasses
import math
import time
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..solvers import SolverChoice
from ._accuracy import Errors, residuals_of
from ._checkpoint import Checkpoint, Kept, as_arrays, from_arrays
from ._controller import VELOCITIES, ResidualController, RunMemory
from ._measure import Evaluation
from ._progress import ProgressBar
from ._segments import Arguments, Segment, advance, begin, changed, inside, margins_inside
from ._start import InitialState, measure
from ._tiers import Phase, Tiers
from .stop import AbstractStopRule

# What a segment should take: what is shown is no older, and an interrupt is heard after so long.
_SECONDS = 0.5
_FIRST_STEPS, _MOST_STEPS, _MOST_GROWTH = 4, 100_000, 4
_LAST_DIGITS = 4 * float(np.finfo(np.float64).eps)


@dataclasses.dataclass(frozen=True)
class Integrated:
    """What an integration came to.

    **Attributes:** `times`, `saved`: what was saved strictly inside the run, without w', and with test data `test_outputs` at
    the probe's inputs; `end`: flow time; `weights`, `last`: there; `errors`: the estimated ones, the worst over the run;
    `result`: Diffrax's; `met`: the stop rule that ended it, or None; `interrupted`: whether the user ended it; `num_steps`,
    `num_accepted_steps`; `evaluations`: velocities and products with their Jacobian, as far as the solver reports on them;
    `solver_state`: the last solver's at the end; `phases`: one for each solver.
    """

    times: list[float]
    saved: list[Evaluation]
    test_outputs: list[np.ndarray]
    end: float
    weights: PyTree
    last: Evaluation
    errors: Errors
    result: diffrax.RESULTS
    met: AbstractStopRule | None
    interrupted: bool
    num_steps: int
    num_accepted_steps: int
    evaluations: np.ndarray
    solver_state: PyTree
    phases: tuple[Phase, ...]


@dataclasses.dataclass(frozen=True)
class _Standing:
    """Where an integration stands.

    **Attributes:** `tiers`: which solver takes the next steps; `memory`: the controller's, on the host; the numbers of steps
    and `evaluations` so far, as in `Integrated`; `time`: at the end of the last step; `met`: the stop rule that is met there or
    before, and `end`: when.
    """

    segment: Segment
    tiers: Tiers
    memory: RunMemory
    num_steps: int
    num_accepted_steps: int
    evaluations: np.ndarray
    time: float
    met: AbstractStopRule | None
    end: float


class _Decision(NamedTuple):
    """What `Tiers.following` was asked where it changed something: told once more, it makes the same of the same tiers."""

    time: float
    num_steps: int
    length: float
    velocities: int
    taken: int
    is_limited: bool


class Loop:
    """Integrates from t = 0 at `weights` to `args.horizon`, a stop rule, a failure or the user's interrupt.

    Segments pause after a number of steps and where a time to save at has been passed, and go on with the step that the
    controller had chosen: what comes out does not depend on how long they are.

    **Arguments:** `start`, `args`: of the run; `save_times`: ascending; `first_step`: its length, in flow time.

    **Attributes:** `standing`: where it stands.
    """

    def __init__(
        self,
        weights: PyTree,
        start: InitialState,
        args: Arguments,
        chosen: SolverChoice,
        controller: ResidualController,
        save_times: np.ndarray,
        first_step: float,
    ):
        self._start, self._args, self._controller = start, args, controller
        self._coming = [float(at) for at in save_times if at > 0]
        self._rows: list[tuple[float, Evaluation, np.ndarray | None]] = []
        self._horizon = float(args.horizon)
        self._minimum = float(args.system.loss.minimum(args.system.problem.y_train))
        self._worst_saved = 0.0
        self._most_steps = _FIRST_STEPS
        self._decisions: list[_Decision] = []
        first = jnp.asarray(float(first_step))
        tiers = Tiers(chosen)
        segment = begin(weights, start.integrals, args, *_solver_of(tiers), self._controller_of(tiers), first)
        self.standing = _Standing(
            segment,
            tiers,
            jax.device_get(segment.controller_state.memory),
            0,
            0,
            np.zeros(2, dtype=int),
            0.0,
            None,
            0.0,
        )

    def run(self, bar: ProgressBar | None, checkpoint: Checkpoint | None = None) -> Integrated:
        """To the end. **Arguments:** `bar`: is told after each segment; `checkpoint`: what it holds is gone on from, and it is
        kept up to date."""
        interrupted = False
        kept = None if checkpoint is None else checkpoint.read()
        if kept is not None:
            self.restore(kept)
        try:
            while self.goes_on:
                self.advance()
                self.save()
                self.change_solver()
                if bar is not None:
                    self.show(bar)
                if checkpoint is not None and checkpoint.is_due:
                    checkpoint.write(self.kept())
        except KeyboardInterrupt:
            interrupted = True
        if checkpoint is not None:
            checkpoint.write(self.kept())
        return self.ended(interrupted)

    def kept(self) -> Kept:
        """All that `restore` needs."""
        standing, rules = self.standing, self._args.rules
        header = {
            "decisions": [list(decision) for decision in self._decisions],
            "num_steps": standing.num_steps,
            "num_accepted_steps": standing.num_accepted_steps,
            "evaluations": standing.evaluations.tolist(),
            "time": standing.time,
            "met": None if standing.met is None else [rule is standing.met for rule in rules].index(True),
            "end": standing.end,
            "worst_saved": self._worst_saved,
            "most_steps": self._most_steps,
            "rows": [at for at, _, _ in self._rows],
        }
        arrays = as_arrays(standing.segment, "segment")
        for number, (_, row, outputs) in enumerate(self._rows):
            arrays |= as_arrays((row, outputs), f"row_{number}")
        return Kept(header, arrays)

    def restore(self, kept: Kept) -> None:
        """Stand where `kept` says."""
        header, tiers, segment = kept.header, self.standing.tiers, self.standing.segment
        self._decisions = [_Decision(*asked) for asked in header["decisions"]]
        for decision in self._decisions:
            tiers, segment = self._decided(decision, tiers, segment)
        segment = from_arrays(segment, kept.arrays, "segment")
        row = jax.device_get(dataclasses.replace(self._start.evaluation, velocity=None))
        outputs = None if self._args.probe is None else np.asarray(self._args.probe.first_outputs)
        rows = [from_arrays((row, outputs), kept.arrays, f"row_{number}") for number in range(len(header["rows"]))]
        self._rows = [(at, *jax.device_get(pair)) for at, pair in zip(header["rows"], rows, strict=True)]
        self._worst_saved, self._most_steps = header["worst_saved"], header["most_steps"]
        self.standing = _Standing(
            segment,
            tiers,
            jax.device_get(segment.controller_state.memory),
            header["num_steps"],
            header["num_accepted_steps"],
            np.asarray(header["evaluations"]),
            header["time"],
            None if header["met"] is None else self._args.rules[header["met"]],
            header["end"],
        )

    @property
    def goes_on(self) -> bool:
        """Whether something is left to integrate."""
        result = self.standing.segment.result
        pauses = bool((result == diffrax.RESULTS.successful) | (result == diffrax.RESULTS.event_occurred))
        return pauses and self.standing.met is None and self.standing.time < self._horizon

    def advance(self) -> None:
        """One more segment."""
        before, began = self.standing, time.perf_counter()
        coming = self._coming[len(self._rows) :]
        next_save = coming[0] if coming else math.inf
        tiers = before.tiers
        pause = min(float(before.num_steps + self._most_steps), tiers.judged_at)
        controller = self._controller_of(tiers).pausing(next_save, pause)
        segment = advance(before.segment, self._args, *_solver_of(tiers), controller)
        # Not the rules' memories, of which one may be as large as the weights.
        state = segment.controller_state
        known = (
            state.memory,
            state.watch.margins,
            state.evaluations,
            segment.time,
            segment.num_steps,
            segment.num_accepted_steps,
        )
        memory, margins, evaluations, now, steps, accepted = jax.device_get(known)
        met, end = self._met(segment, np.asarray([float(margin) for margin in margins]), float(now))
        # In one go, so that an interrupt finds the loop before the segment or behind it.
        self.standing = _Standing(
            segment,
            tiers,
            memory,
            before.num_steps + int(steps),
            before.num_accepted_steps + int(accepted),
            evaluations,
            float(now),
            met,
            end,
        )
        seconds = (time.perf_counter() - began) / max(int(steps), 1)
        self._most_steps = int(np.clip(_SECONDS / seconds, 1, min(_MOST_GROWTH * self._most_steps, _MOST_STEPS)))

    def save(self) -> None:
        """What is to be saved inside the run up to where it stands."""
        last = self._horizon if self.standing.met is None else self.standing.end
        for at in self._coming[len(self._rows) :]:
            if at > self.standing.time or at >= last:
                break
            weights, integrals, outputs = self._inside(at)
            # Without w', which is as large as the weights.
            row = dataclasses.replace(self._measured(at, weights, integrals), velocity=None)
            self._rows.append((at, *jax.device_get((row, outputs))))
            self._worst_saved = max(self._worst_saved, self._error_at(at, self._rows[-1][1]))

    def change_solver(self) -> None:
        """Go on with another solver where that is better by now."""
        standing, tiers = self.standing, self.standing.tiers
        has_successor = tiers.chosen.change is not None
        if not self.goes_on or standing.time == 0 or not (has_successor or standing.num_steps >= tiers.judged_at):
            return
        last, taken = standing.segment.last_step, int(standing.evaluations @ VELOCITIES)
        velocities, is_limited = 0, False
        if has_successor:
            report = standing.segment.last_report
            velocities, is_limited = int(report.num_velocities), bool(report.is_limited)
        length = float(last.end - last.start)
        asked = _Decision(standing.time, standing.num_steps, length, velocities, taken, is_limited)
        found, segment = self._decided(asked, tiers, standing.segment)
        if found is not tiers:
            self._decisions.append(asked)
        # In one go, as in `advance`.
        self.standing = dataclasses.replace(standing, segment=segment, tiers=found)

    def _decided(self, asked: _Decision, tiers: Tiers, segment: Segment) -> tuple[Tiers, Segment]:
        """What `tiers` and `segment` become."""
        found = tiers.following(*asked)
        if found.chosen is tiers.chosen:
            return found, segment
        return found, changed(segment, self._args, *_solver_of(found), self._controller_of(found))

    def _controller_of(self, tiers: Tiers) -> ResidualController:
        return self._controller.for_steps_of(tiers.chosen, tiers.most_velocities)

    def show(self, bar: ProgressBar) -> None:
        """Tell the bar."""
        standing = self.standing
        bar.update(standing.time, float(standing.memory.loss), standing.num_steps)

    def ended(self, interrupted: bool) -> Integrated:
        """The end, and all that was saved before it."""
        self.save()
        standing = self.standing
        segment, end = standing.segment, standing.end
        rows = [row for row in self._rows if row[0] < end]
        weights, integrals = segment.weights, segment.integrals
        if end < standing.time:
            weights, integrals, _ = self._inside(end)
        last, errors = self._measured(end, weights, integrals), standing.memory.errors_until(end)
        return Integrated(
            times=[at for at, _, _ in rows],
            saved=[row for _, row, _ in rows],
            test_outputs=[outputs for _, _, outputs in rows if outputs is not None],
            end=end,
            weights=weights,
            last=last,
            errors=Errors(max(errors.residual, self._worst_saved, self._error_at(end, last)), errors.test_outputs),
            # A pause where nothing is left is none.
            result=diffrax.RESULTS.where(
                segment.result == diffrax.RESULTS.event_occurred, diffrax.RESULTS.successful, segment.result
            ),
            met=standing.met,
            interrupted=interrupted and self.goes_on,
            num_steps=standing.num_steps,
            num_accepted_steps=standing.num_accepted_steps,
            evaluations=standing.evaluations,
            solver_state=segment.solver_state.inner,
            phases=standing.tiers.phases(standing.num_steps),
        )

    def _error_at(self, at: float, row: Evaluation) -> float:
        """The error of the residual at a time within the last step, relative to what was measured there: where outputs pass
        through their targets it may be far below the residuals at the ends of the step."""
        memory, floor = self.standing.memory, float(self._controller.tolerated.floor)
        behind, here = (residuals_of([memory.loss, row.values["train_loss"]], self._minimum) + floor).tolist()
        return float(memory.last_error) * behind / here if here > 0 else 0.0

    def _inside(self, at: float) -> tuple[PyTree, dict[str, Array], Array | None]:
        last, args = self.standing.segment.last_step, self._args
        return inside(jnp.asarray(at), last, _solver_of(self.standing.tiers)[0], args.system, args.probe)

    def _measured(self, at: float, weights: PyTree, integrals: dict[str, Array]) -> Evaluation:
        args = self._args
        return measure(jnp.asarray(at), weights, integrals, args.system, args.measurement, self._start.memories)

    def _met(self, segment: Segment, margins: np.ndarray, now: float) -> tuple[AbstractStopRule | None, float]:
        """The rule that is met first in the last step, and when; None, and its end."""
        rules, solver = self._args.rules, _solver_of(self.standing.tiers)[0]
        met = [i for i in np.flatnonzero(margins <= 0) if rules[i].bisected]
        if not met:
            others = sorted(np.flatnonzero(margins <= 0), key=lambda i: margins[i])
            return next((rules[i] for i in others if self._is_over(rules[i], segment, now)), None), now

        from scipy.optimize import root_scalar  # loaded by runs that a rule ends

        def inside(at: float) -> np.ndarray:
            if at == now:
                return margins
            return np.asarray(margins_inside(jnp.asarray(at), segment.last_step, solver, self._args))

        before = float(segment.last_step.start)
        end = before
        if np.nanmin(inside(before)[met]) > 0:
            # A margin of outputs that are small differences of large numbers has few digits; the bracket shrinks all the same.
            digits = {"xtol": _LAST_DIGITS * now, "rtol": _LAST_DIGITS}
            found = root_scalar(
                lambda at: float(np.nanmin(inside(at)[met])), method="brentq", bracket=(before, now), **digits
            )
            end = float(found.root)
        return rules[met[int(np.nanargmin(inside(end)[met]))]], end

    def _is_over(self, rule: AbstractStopRule, segment: Segment, now: float) -> bool:
        args = self._args
        return rule.is_over(now, segment.weights, args.system, args.measurement.flow, self._horizon)


def _solver_of(tiers: Tiers) -> tuple[diffrax.AbstractAdaptiveSolver, bool]:
    """The solver, and whether it takes a linearisation."""
    return tiers.chosen.solver, tiers.chosen.needs_linearisation
