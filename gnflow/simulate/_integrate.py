"""An integration as a loop over compiled segments. Between segments it saves, shows progress and looks for the end."""

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

# How long a segment should take: the age of what the progress bar shows, and the delay until an interrupt is noticed.
_SECONDS = 0.5
_FIRST_STEPS, _MOST_STEPS, _MOST_GROWTH = 4, 100_000, 4
_LAST_DIGITS = 4 * float(np.finfo(np.float64).eps)


@dataclasses.dataclass(frozen=True)
class Integrated:
    """The outcome of an integration.

    **Attributes:**

    - `times`, `saved`: the saved times strictly inside the run and what was measured there, without w'.
    - `test_outputs`: the outputs (n, C) at the probe's inputs at these times; empty without test data.
    - `kept`: the weights, on the host, at those of these times at which they are kept.
    - `end`: the flow time of the end.
    - `weights`, `last`: the weights and what was measured at the end.
    - `errors`: the largest estimated errors along the run.
    - `result`: the result of Diffrax.
    - `met`: the stop rule that ended the run, or None.
    - `interrupted`: whether the user ended it.
    - `num_steps`, `num_accepted_steps`: the steps tried, and those of them that were accepted.
    - `evaluations`: the number of velocities and of products with their Jacobian (2,), as far as the solver reports them.
    - `solver_state`: the state of the last solver at the end.
    - `phases`: one for each solver.
    """

    times: list[float]
    saved: list[Evaluation]
    test_outputs: list[np.ndarray]
    kept: dict[float, PyTree]
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

    **Attributes:**

    - `segment`: the last segment.
    - `tiers`: which solver takes the next steps.
    - `memory`: the memory of the controller, on the host.
    - `num_steps`, `num_accepted_steps`, `evaluations`: the counts so far, as in `Integrated`.
    - `time`: the flow time at the end of the last step.
    - `met`: the stop rule that is met at this time or before, or None.
    - `end`: the time at which it is met; without a rule, `time`.
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


class _Row(NamedTuple):
    """What is kept, on the host, of a saved time.

    **Attributes:**

    - `time`: the flow time.
    - `evaluation`: what was measured, without w', which is as large as the weights.
    - `outputs`: the outputs (n, C) at the probe's inputs, None without test data.
    - `weights`: the weights, None at a time at which they are not kept.
    """

    time: float
    evaluation: Evaluation
    outputs: np.ndarray | None
    weights: PyTree | None


class _Decision(NamedTuple):
    """The arguments of a call of `Tiers.following` that changed something. A checkpoint keeps them, and a resumed run repeats
    the calls to arrive at the same tiers."""

    time: float
    num_steps: int
    length: float
    velocities: int
    taken: int
    is_limited: bool


class Loop:
    """Integrates from t = 0 at `weights` to `args.horizon`, a stop rule, a failure or the user's interrupt.

    A segment pauses after a number of steps and where it has passed a time to save at. The next one begins with the step that
    the controller had chosen, so the result does not depend on how long segments are.

    **Arguments:**

    - `weights`: the first weights.
    - `start`, `args`: the first state of the run, and what its compiled programs need.
    - `chosen`: the first solver.
    - `controller`: the step-size controller.
    - `save_times`: the flow times to save at, ascending.
    - `weight_times`: those of them at which the weights are kept.
    - `first_step`: the length of the first step, in flow time.

    **Attributes:**

    - `standing`: where the integration stands.
    """

    def __init__(
        self,
        weights: PyTree,
        start: InitialState,
        args: Arguments,
        chosen: SolverChoice,
        controller: ResidualController,
        save_times: np.ndarray,
        weight_times: frozenset[float],
        first_step: float,
    ):
        self._start, self._args, self._controller = start, args, controller
        self._coming = [float(at) for at in save_times if at > 0]
        self._weight_times = weight_times
        self._rows: list[_Row] = []
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
        """Integrate to the end.

        **Arguments:**

        - `bar`: updated after each segment.
        - `checkpoint`: if it holds a state, the integration goes on from there. It is kept up to date.
        """
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
            "rows": [row.time for row in self._rows],
        }
        arrays = as_arrays(standing.segment, "segment")
        for number, row in enumerate(self._rows):
            arrays |= as_arrays(row[1:], f"row_{number}")
        return Kept(header, arrays)

    def restore(self, kept: Kept) -> None:
        """Return to the state that `kept` holds."""
        header, tiers, segment = kept.header, self.standing.tiers, self.standing.segment
        self._decisions = [_Decision(*asked) for asked in header["decisions"]]
        for decision in self._decisions:
            tiers, segment = self._decided(decision, tiers, segment)
        segment = from_arrays(segment, kept.arrays, "segment")
        row = jax.device_get(dataclasses.replace(self._start.evaluation, velocity=None))
        outputs = None if self._args.probe is None else np.asarray(self._args.probe.first_outputs)
        weights = jax.device_get(segment.weights)
        likes = [(row, outputs, weights if at in self._weight_times else None) for at in header["rows"]]
        rows = [from_arrays(like, kept.arrays, f"row_{number}") for number, like in enumerate(likes)]
        self._rows = [_Row(at, *jax.device_get(row)) for at, row in zip(header["rows"], rows, strict=True)]
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
        """Whether something is left to integrate: no failure, no rule met, and the horizon not reached."""
        result = self.standing.segment.result
        pauses = bool((result == diffrax.RESULTS.successful) | (result == diffrax.RESULTS.event_occurred))
        return pauses and self.standing.met is None and self.standing.time < self._horizon

    def advance(self) -> None:
        """Integrate one more segment."""
        before, began = self.standing, time.perf_counter()
        coming = self._coming[len(self._rows) :]
        next_save = coming[0] if coming else math.inf
        tiers = before.tiers
        pause = min(float(before.num_steps + self._most_steps), tiers.judged_at)
        controller = self._controller_of(tiers).pausing(next_save, pause)
        segment = advance(before.segment, self._args, *_solver_of(tiers), controller)
        # Only small numbers come to the host. The rules' memories stay on the device: one may be as large as the weights.
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
        # One assignment, so that an interrupt finds the loop either before this segment or after it, never in between.
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
        """Save at the times that the integration has passed."""
        last = self._horizon if self.standing.met is None else self.standing.end
        for at in self._coming[len(self._rows) :]:
            if at > self.standing.time or at >= last:
                break
            weights, integrals, outputs = self._inside(at)
            row = dataclasses.replace(self._measured(at, weights, integrals), velocity=None)
            known = row, outputs, weights if at in self._weight_times else None
            self._rows.append(_Row(at, *jax.device_get(known)))
            self._worst_saved = max(self._worst_saved, self._error_at(at, self._rows[-1].evaluation))

    def change_solver(self) -> None:
        """Continue with another solver if `Tiers` says so."""
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
        # One assignment, as in `advance`.
        self.standing = dataclasses.replace(standing, segment=segment, tiers=found)

    def _decided(self, asked: _Decision, tiers: Tiers, segment: Segment) -> tuple[Tiers, Segment]:
        """The tiers and the segment after the decision `asked`."""
        found = tiers.following(*asked)
        if found.chosen is tiers.chosen:
            return found, segment
        return found, changed(segment, self._args, *_solver_of(found), self._controller_of(found))

    def _controller_of(self, tiers: Tiers) -> ResidualController:
        return self._controller.for_steps_of(tiers.chosen, tiers.most_velocities)

    def show(self, bar: ProgressBar) -> None:
        """Update the bar."""
        standing = self.standing
        bar.update(standing.time, float(standing.memory.loss), standing.num_steps)

    def ended(self, interrupted: bool) -> Integrated:
        """The outcome, with all that was saved before the end."""
        self.save()
        standing = self.standing
        segment, end = standing.segment, standing.end
        rows = [row for row in self._rows if row.time < end]
        weights, integrals = segment.weights, segment.integrals
        if end < standing.time:
            weights, integrals, _ = self._inside(end)
        last, errors = self._measured(end, weights, integrals), standing.memory.errors_until(end)
        return Integrated(
            times=[row.time for row in rows],
            saved=[row.evaluation for row in rows],
            test_outputs=[row.outputs for row in rows if row.outputs is not None],
            kept={row.time: row.weights for row in rows if row.weights is not None},
            end=end,
            weights=weights,
            last=last,
            errors=Errors(max(errors.residual, self._worst_saved, self._error_at(end, last)), errors.test_outputs),
            # A pause at the end of the run is a success: nothing is left to integrate.
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
        """The error of the residual at a time `at` within the last step, relative to the residual of `row`, measured there.

        Where outputs pass through their targets that residual may be far below those at the ends of the step.
        """
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
        """The rule that is met first in the last step, and the time. If none is met: None, and the end of the step."""
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
            # Brent's method needs a change of sign, not smooth values. Margins of outputs that are small differences of large
            # numbers have few digits, and the bracket still shrinks to the last digits of the time.
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
    """The present solver, and whether it needs a linearisation."""
    return tiers.chosen.solver, tiers.chosen.needs_linearisation
