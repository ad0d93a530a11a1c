"""One solution of a run at one tolerance: what it saved, where and why it ended, and its estimated error."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._core import Result, ResultCode
from ..flows import AbstractFlow
from ..geometry import SolveDiagnostics, System
from ..solvers import AbstractErrorCarryingSolver, AbstractReportingSolver, SolverChoice, stages_per_step
from ._accuracy import UNKNOWN, Errors, residuals_of, shortening
from ._checkpoint import Checkpoint
from ._controller import AbstractErrorNorm, ResidualController, Tolerances
from ._integrate import Integrated, Loop
from ._measure import Evaluation, Measurement, Values, numbers_as_arrays
from ._outcome import End, integration_result, stack_solves
from ._progress import ProgressBar
from ._segments import Arguments
from ._start import InitialState, last_time_scale, linearisation_at, linearise_at
from ._tiers import Phase
from .stop import AbstractStopRule

_FIRST_STEP = (
    0.03  # share of the time scale of the first loss decrease; the error control shortens a step that is too long
)
# How many times the steps of the first solution a second one may take. At a fifth of the tolerance a method of order 4 takes
# half as many more, and five times as many on kinks where a solution slides.
_WORTH, _WORTH_WITHOUT_KINKS = 8, 2
# In units of `max_steps`: without this limit the third solution in a row might take 64 times as long as the first.
_MOST_WORTH = 4


@dataclasses.dataclass(frozen=True)
class Solution:
    """A solution of a run at one tolerance.

    **Attributes:**

    - `rtol`: the tolerance of one step.
    - `floor`: the residual below which errors count as rounding (`Tolerances.floor`).
    - `phases`: which solvers took the steps, and from when on.
    - `times`, `rows`: the saved times and what was measured there, from the start to the end.
    - `test_outputs`: the outputs (saves, n, C) at these times at the probe's inputs, None without test data.
    - `solves`: the diagnostics of the direction solves at these times, with a first axis added; None for a flow without one.
    - `kept`: the weights at those of these times at which they are kept, but for the start and the end.
    - `ended`: the weights and what was measured at the end.
    - `result`: how it ended.
    - `errors`: the largest estimated errors along the run.
    - `counts`: the numbers of steps and velocities, and what else the solver reports.
    """

    rtol: float
    floor: float
    phases: tuple[Phase, ...]
    times: np.ndarray
    rows: list[Values]
    test_outputs: np.ndarray | None
    solves: SolveDiagnostics | None
    kept: dict[float, PyTree]
    ended: End
    result: Result
    errors: Errors
    counts: dict[str, Any]

    @property
    def chosen(self) -> SolverChoice:
        """The solver, or the last one if there were several."""
        return self.phases[-1].chosen

    @property
    def solvers(self) -> dict[str, str]:
        """Which solvers took the steps, and why: `solver` and `solver_reason` of a trajectory's stats."""
        first, *others = self.phases
        reasons = [f"from flow time {phase.begins:.4g}: {phase.chosen.reason}" for phase in others]
        return {
            "solver": ", then ".join(phase.chosen.name for phase in self.phases),
            "solver_reason": "; ".join([first.chosen.reason, *reasons]),
        }

    @property
    def errs_upwards(self) -> bool:
        """Whether the estimated errors are upper estimates."""
        solver = self.chosen.solver
        return not isinstance(solver, AbstractErrorCarryingSolver) or solver.errs_upwards

    @property
    def may_jump(self) -> bool:
        """Whether the velocity may jump along the run, at a kink of the model or by the flow itself.

        A model that is not known to be free of kinks counts as one that may have them.
        """
        system, flow = self.ended.system, self.ended.measurement.flow.dynamics
        return system.has_kinks is not False or flow.has_jumps(system)

    @property
    def has_kinks(self) -> bool:
        """Whether the model is known to have kinks."""
        return bool(self.ended.system.has_kinks)

    @functools.cached_property
    def last_rate(self) -> float:
        """The rate |d log r/dt| at which the residual falls at the end, per unit of flow time."""
        return 0.5 / float(last_time_scale(self.ended.weights, self.ended.last, self.ended.system))

    @property
    def is_costly(self) -> bool:
        """Whether the solver is the last resort of a run. Two such solutions are made, but no third."""
        return self.chosen.most_steps is not None

    @property
    def num_steps(self) -> int:
        """The number of steps, accepted and rejected."""
        return self.counts["num_steps"]

    @property
    def end(self) -> float:
        """The flow time at which it ended."""
        return float(self.times[-1])

    def residuals(self, minimum: float) -> np.ndarray:
        """r = sqrt(2 (L - L*)) at the saved times, for L* = `minimum`."""
        return residuals_of([float(row["train_loss"]) for row in self.rows], minimum)


@dataclasses.dataclass(frozen=True)
class Integration:
    """A run that can be integrated at any tolerance.

    **Attributes:**

    - `weights`: the first weights.
    - `args`, `start`: what the compiled programs need, and the first state, as in `Loop`.
    - `choose`: chooses the solver for a tolerance; its second argument says whether the usual solver ran out of steps.
    - `rules`: the stop rules.
    - `t1`: as for `simulate`.
    - `save_times`, `weight_times`: as for `Loop`.
    - `atol`, `error_norm`, `monotone`, `max_steps`: as for `ResidualController`.
    - `bar`: the progress bar, or None.
    - `steps_to_saves`: as for `simulate_once`.
    - `checkpoints`: a checkpoint for each solution in their order, or None.
    """

    weights: PyTree
    args: Arguments
    start: InitialState
    choose: Callable[[float, bool], SolverChoice]
    rules: tuple[AbstractStopRule, ...]
    t1: float | None
    save_times: np.ndarray
    weight_times: frozenset[float]
    atol: float
    error_norm: AbstractErrorNorm
    monotone: bool
    max_steps: int
    bar: ProgressBar | None
    steps_to_saves: bool
    checkpoints: Iterator[Checkpoint] | None = None

    @property
    def system(self) -> System:
        """The problem joined with the model's structure."""
        return self.args.system

    def solve(self, rtol: float, before: Solution | None = None) -> Solution:
        """Integrate with the tolerance `rtol` for a step. If the usual solver uses up its steps, another one integrates again.

        **Arguments:**

        - `rtol`: the tolerance of one step.
        - `before`: the solution to compare this one with, or None. A tighter solution may take more steps: five times as many
          at a fifth of the tolerance if the activation has kinks.
        """
        taken = 0 if before is None else before.num_steps
        usual, other = self.choose(rtol, False), self.choose(rtol, True)
        has_other = other.name != usual.name
        if has_other and before is not None and before.chosen.name == other.name:
            return self._solve(rtol, other, taken)
        solution = self._solve(rtol, usual, taken)
        if has_other and solution.result.code == ResultCode.MAX_STEPS_REACHED:
            return self._solve(rtol, other, 0)
        return solution

    def _solve(self, rtol: float, chosen: SolverChoice, taken: int) -> Solution:
        """Integrate by the `chosen` solver. The more steps the solution before has `taken`, the more this one may take."""
        rules = tuple(rule.at_accuracy(rtol) for rule in self.rules)
        args = dataclasses.replace(self.args, rules=numbers_as_arrays(rules))
        if chosen.most_steps is None:
            most = max(self.max_steps, min(_WORTH * taken, _MOST_WORTH * self.max_steps))
        else:
            most = max(min(self.max_steps, chosen.most_steps), _WORTH_WITHOUT_KINKS * taken)
        tolerated = Tolerances.at(float(rtol), float(self.atol), self.weights)
        told, max_steps = numbers_as_arrays((tolerated, float(most)))
        controller = ResidualController(
            rtol=told.relative,
            atol=told.residual,
            weight_atol=told.weights,
            error_norm=self.error_norm,
            max_steps=max_steps,
            steps_to_pauses=jnp.asarray(self.steps_to_saves),
            monotone=self.monotone,
        )
        scale, horizon = float(self.start.time_scale), float(self.args.horizon)
        # The first step shortens with the tolerance. Otherwise two solutions would share their first steps, which grow by a
        # fixed factor each, and with them the errors made there.
        first_step = min(_FIRST_STEP * float(shortening(rtol)) * scale, horizon)
        times = self.save_times, self.weight_times
        loop = Loop(self.weights, self.start, args, chosen, controller, *times, first_step)
        found = loop.run(self.bar, None if self.checkpoints is None else next(self.checkpoints))
        first = self.start.evaluation
        ended = End(found.end, found.weights, found.last, first, self.system, self.args.measurement, found.errors.worst)
        rows = [first, *found.saved, found.last]
        return Solution(
            rtol=rtol,
            floor=tolerated.floor,
            phases=found.phases,
            times=np.asarray([0.0, *found.times, found.end]),
            rows=[jax.device_get(row.values) for row in rows],
            test_outputs=self._test_outputs(found),
            solves=stack_solves(row.diagnostics for row in rows),
            kept=found.kept,
            ended=ended,
            result=integration_result(found, found.phases[-1].chosen, rules, self.t1, ended),
            errors=UNKNOWN
            if self.args.measurement.flow.dynamics.has_jumps(self.system) or _jumps(rows)
            else found.errors,
            counts=_counts(found),
        )

    def _test_outputs(self, found: Integrated) -> np.ndarray | None:
        """The outputs (saves, n, C) at the probe's inputs, from the start to the end."""
        probe = self.args.probe
        if probe is None:
            return None
        last = probe.outputs(self.system, found.weights)
        return np.stack([np.asarray(probe.first_outputs), *found.test_outputs, np.asarray(last)])


def _jumps(rows: list[Evaluation]) -> bool:
    """Whether the velocity jumped along the run. No linearisation carries an error over a jump."""
    # The number of kept modes is an integer, so the direction jumps where it changes.
    solves = [row.diagnostics for row in rows]
    return len({None if solve is None or solve.kept is None else int(solve.kept) for solve in solves}) > 1


def _counts(found: Integrated) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "num_steps": found.num_steps,
        "num_accepted_steps": found.num_accepted_steps,
        "num_rejected_steps": found.num_steps - found.num_accepted_steps,
    }
    solvers = [phase.chosen.solver for phase in found.phases]
    if isinstance(solvers[-1], AbstractReportingSolver):
        counts |= solvers[-1].stats(found.solver_state)
    reported, products = found.evaluations.tolist()
    if products:
        counts["num_jacobian_products"] = products
    others = [phase for phase in found.phases if not isinstance(phase.chosen.solver, AbstractReportingSolver)]
    stages = [stages_per_step(phase.chosen.solver) for phase in others]
    if None not in stages:
        # Carrying the error takes one more velocity per step, and each solver without a report takes one to begin with.
        taken = sum((stage or 0) * phase.num_steps + 1 for stage, phase in zip(stages, others, strict=True))
        counts["num_velocity_evaluations"] = reported + taken + found.num_steps
    return counts


def linearisation_stats(solution: Solution, system: System, measurement: Measurement) -> dict[str, int | float]:
    """How much of the flow's Jacobian the solver used; if not all of it, also how accurate that part is at the end."""
    flow: AbstractFlow = measurement.flow
    solver: Any = solution.chosen.solver
    arguments = (jnp.asarray(solution.end), solution.ended.weights, system, flow, solver.decomposition)
    rank = eqx.filter_eval_shape(linearise_at, *arguments)[0].shape[0]
    stats: dict[str, int | float] = {"linearisation_rank": rank, "linearisation_size": system.problem.y_train.size}
    if rank < system.problem.y_train.size:
        _, residual, left_out = linearisation_at(*arguments)
        stats |= {"final_linearisation_residual": float(residual), "final_fastest_rate_left_out": float(left_out)}
    return stats
