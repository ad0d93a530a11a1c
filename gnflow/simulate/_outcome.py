"""Turn the end of an integration into a result code and a sentence that says what to do."""

import dataclasses
from collections.abc import Iterable

import diffrax
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import Result, ResultCode, jit_for_states, tree_dot, tree_norm
from ..geometry import SolveDiagnostics, System
from ..solvers import AbstractReportingSolver, SolverChoice
from ._advice import advice
from ._integrate import Integrated
from ._measure import Evaluation, Measurement, numbers_as_arrays
from ._standstill import why_still
from .stop import AbstractStopRule

_TRUSTED = 0.05  # no message advises looser tolerances if the estimated error is above this
_FOLDS = 1e3  # e-folds by which vanishing weights shrink in the time of the run: more than floating-point numbers have
_LATER = 1e3  # a run that stands still is checked for motion up to this multiple of its end time
_FIRST_LOSS = "the training loss of the initial model is not finite"


@dataclasses.dataclass(frozen=True)
class End:
    """The end of an integration.

    **Attributes:**

    - `time`, `weights`: flow time and weights.
    - `last`, `first`: what was measured at the end and at the start.
    - `system`, `measurement`: the problem joined with the model's structure, and what is measured.
    - `error`: the estimated relative error of the run, the larger one of training residual and test outputs.
    """

    time: float
    weights: PyTree
    last: Evaluation
    first: Evaluation
    system: System
    measurement: Measurement
    error: float = 0.0

    @property
    def where(self) -> str:
        """Time and loss, in words."""
        return f"at flow time {self.time:.6g}, training loss {self.loss:.3e}"

    @property
    def loss(self) -> float:
        """The training loss."""
        return float(self.last.values["train_loss"])

    def is_over(self, rule: AbstractStopRule) -> bool:
        """Whether a rule that is met here agrees that the run is over."""
        return rule.is_over(self.time, self.weights, self.system, self.measurement.flow, _LATER * self.time)

    @property
    def advice(self) -> str:
        """A note on what is unusual about the data; empty if nothing is."""
        found = advice(self.system, self.weights)
        return f" Note: {found}." if found else ""


def integration_result(
    found: Integrated,
    chosen: SolverChoice,
    rules: tuple[AbstractStopRule, ...],
    t1: float | None,
    end: End,
) -> Result:
    """The result of an integration by the `chosen` solver.

    **Arguments:**

    - `found`: the outcome of the integration.
    - `chosen`: the last solver.
    - `rules`: the stop rules of the run.
    - `t1`: the argument of `simulate`.
    - `end`: the end of the run.
    """
    if found.interrupted:
        return Result(
            ResultCode.INTERRUPTED, f"the run was interrupted {end.where}; what it came to so far is kept.", end.time
        )
    met = found.met
    if met is not None:
        if met.code == ResultCode.STATIONARY:
            return _stationary(met, rules, end)
        return Result(met.code, f"{met.describe()} {end.where}", end.time)
    if found.result == diffrax.RESULTS.successful and t1 is not None:
        return Result(ResultCode.TIME_REACHED, f"t1 = {t1:.6g} was reached {end.where}", end.time)
    if found.result == diffrax.RESULTS.dt_min_reached and not _is_finite(end):
        return _broken_down(end)
    still = next((rule for rule in rules if rule.code == ResultCode.STATIONARY), None)
    if still is not None and float(_margin_from_here(still, end)) <= 0 and end.is_over(still):
        return _stationary(still, rules, end)
    if found.result == diffrax.RESULTS.successful:
        return Result(
            ResultCode.HORIZON_REACHED,
            f"the longest flow time was reached, no stop rule met {end.where}: "
            f"{_unseen(end) or _vanishing(end) or 'give t1, or ask for what is within reach.'}{end.advice}",
            end.time,
        )
    doubts = chosen.solver.doubts(found.solver_state) if isinstance(chosen.solver, AbstractReportingSolver) else ""
    if found.result == diffrax.RESULTS.max_steps_reached:
        steps = found.num_steps
        why = _why_so_many_steps(chosen, end, doubts)
        unmet = "".join(f" {reason}" for reason in (rule.why_unmet() for rule in rules) if reason)
        return Result(
            ResultCode.MAX_STEPS_REACHED,
            f"max_steps = {steps} steps were used up {end.where}; {why}{unmet}{end.advice}",
            end.time,
        )
    if found.result == diffrax.RESULTS.dt_min_reached:
        return _broken_down(end, doubts)
    why = diffrax.RESULTS[found.result]
    return Result(ResultCode.SOLVER_FAILED, f"the solver gave up {end.where}: {why}", end.time)


def first_loss_not_finite(system: System, weights: PyTree) -> Result:
    """The result of a run whose first training loss is not finite. The message names the first output that is not."""
    outputs = np.asarray(system.outputs(weights))
    wrong = np.argwhere(~np.isfinite(outputs))
    if not len(wrong):
        return Result(ResultCode.NON_FINITE, f"{_FIRST_LOSS}: it overflows", 0.0)
    row, output = map(int, wrong[0])
    more = f" ({len(wrong)} of {outputs.size} are not finite)" if len(wrong) > 1 else ""
    where = system.problem.place_of(row, output)
    return Result(ResultCode.NON_FINITE, f"{_FIRST_LOSS}: {where} is {outputs[row, output]}{more}", 0.0)


def met_at_start(rule: AbstractStopRule, rules: tuple[AbstractStopRule, ...], end: End) -> Result:
    """The result of a run that `rule` ends before any step."""
    if rule.code == ResultCode.STATIONARY:
        return _stationary(rule, rules, end)
    return Result(ResultCode.STOP_RULE_MET_AT_START, f"{rule.describe()} before any step was taken", 0.0)


def _stationary(rule: AbstractStopRule, rules: tuple[AbstractStopRule, ...], end: End) -> Result:
    """The result of a run that stands still, with the reasons."""
    targets = [other.describe() for other in rules if other is not rule]
    missed = f"; no other rule was met ({', '.join(targets)})" if targets else ""
    balanced = ["weight decay balances what drives the weights; with a smaller rate they rest closer to the targets"]
    why = "; ".join(balanced if _decays(end) else why_still(end.system, end.weights))
    return Result(rule.code, f"{rule.describe()} {end.where}{missed}{': ' if why else ''}{why}", end.time)


def _decays(end: End) -> bool:
    return end.measurement.flow.dynamics.decay(end.weights, end.system) is not None


@jit_for_states
def _margin_after(
    rule: AbstractStopRule, time: Float[Array, ""], weights: PyTree, system: System, measurement: Measurement
) -> Float[Array, ""]:
    snapshot = measurement.snapshot(time, weights, system, {})
    return rule.margin(snapshot, rule.prepare(snapshot))


def _margin_from_here(rule: AbstractStopRule, end: End) -> Float[Array, ""]:
    """The margin of the rule for a run that would begin at this end."""
    rule, time = numbers_as_arrays((rule, end.time))
    return _margin_after(rule, time, end.weights, end.system, end.measurement)


def _vanishing(end: End) -> str:
    """A sentence on weights that decay to zero, and so never balance; empty of others."""
    if not _decays(end):
        return ""
    shrinking = -float(tree_dot(end.measurement.flow.velocity(end.time, end.weights, end.system), end.weights))
    if shrinking * end.time <= _FOLDS * float(tree_dot(end.weights, end.weights)):
        return ""
    return "the weights vanish, as their decay is stronger than what drives them; give t1, or a smaller rate."


def _unseen(end: End) -> str:
    """A sentence about a flow whose velocity is zero although the gradient is not; empty otherwise."""
    if end.last.velocity is None or float(tree_norm(end.last.velocity)) > 0 or _decays(end):
        return ""
    if float(tree_norm(jax.grad(end.system.train_loss)(end.weights))) == 0:
        return ""
    return (
        "the velocity is zero although the gradient of the loss is not: the flow does not see it (an output metric that is "
        "zero here, as Huber's Hessian where |f - y| > delta, without damping); take damping above zero, or metric='identity'."
    )


def _why_so_many_steps(chosen: SolverChoice, end: End, doubts: str) -> str:
    """What may have made the steps short, and the remedy. What the run shows comes before what the solver says (`doubts`)."""
    rises = end.loss > float(end.first.values["train_loss"])
    if rises or not end.error <= _TRUSTED:
        sign = (
            "the loss is above its first value" if rises else f"the estimated error is {end.error:.2g} of the residual"
        )
        return (
            f"{sign}, so that the steps are not short enough: tighten rtol, damp more or take a smoother activation before "
            "allowing more of them."
        )
    if doubts:
        return doubts
    return (
        f"the tolerance is tight for this flow and the solver {chosen.name!r} (features that turn fast, a kink of the "
        "activation) or the target is out of reach: allow more steps, ask for less, or loosen rtol where half of it gives the "
        "same losses."
    )


def _is_finite(end: End) -> bool:
    return solved(end.last) and bool(np.isfinite(end.loss))


def _broken_down(end: End, doubts: str = "") -> Result:
    """Why the step size shrank to nothing, judged by the last state and by what the solver says (`doubts`)."""
    if not solved(end.last):
        return Result(ResultCode.DIRECTION_FAILED, direction_failure(end.where), end.time)
    if not np.isfinite(end.loss):
        return Result(ResultCode.NON_FINITE, f"the training loss is not finite {end.where}", end.time)
    return Result(
        ResultCode.STEP_SIZE_TOO_SMALL,
        f"no step was small enough to be accepted {end.where}: the velocity is not finite or not continuous nearby (a kink of "
        "the activation, a rank that jumps, tolerances below rounding); add damping, take a smooth activation, or tolerances "
        f"that rounding allows.{' ' if doubts else ''}{doubts}{end.advice}",
        end.time,
    )


def solved(evaluation: Evaluation) -> bool:
    """Whether the direction solve succeeded. True for a flow without a solve."""
    return evaluation.diagnostics is None or bool(evaluation.diagnostics.success)


def direction_failure(where: str) -> str:
    """The message for a direction solve that broke down."""
    return (
        f"the solve for the direction broke down {where}: its numbers are not finite, or the Gram matrix is not positive "
        "definite to working precision; take smaller steps, the direction solver TruncatedEigh or more damping."
    )


def step_failure(
    step: int,
    too_long: str,
    relative_residual: float | None,
    loss: float,
    loss_after: float = 0.0,
    name: str = "the training loss",
) -> Result | None:
    """Why a run in steps ends at step number `step`, or None.

    **Arguments:**

    - `too_long`: the clause of the method on steps that are too long (`AbstractStep`).
    - `relative_residual`: the relative residual of the direction solve, None for a flow without a solve.
    - `loss`: the loss before the step.
    - `loss_after`: the loss after the step, if it is known.
    - `name`: what the message calls the loss.
    """
    where = f"at step {step}"
    # If the loss is not finite, no direction can be found either. Then the step failed, not the solve.
    if np.isfinite(loss) and relative_residual is not None and not np.isfinite(relative_residual):
        return Result(ResultCode.DIRECTION_FAILED, direction_failure(where), float(step))
    if np.isfinite(loss) and np.isfinite(loss_after):
        return None
    if step == 0:
        return Result(ResultCode.NON_FINITE, _FIRST_LOSS, 0.0)
    return Result(ResultCode.NON_FINITE, f"{name} is not finite {where}: {too_long}", float(step))


def with_solve_warning(result: Result, solves: SolveDiagnostics | None, where: str = "saved states") -> Result:
    """`result` with a note if some direction solves failed or were truncated.

    **Arguments:**

    - `solves`: the diagnostics of one or several states, as from `stack_solves`.
    - `where`: what the states are called, in the plural.
    """
    if result.failed or solves is None:
        return result
    residuals = np.asarray(solves.relative_residual)
    failed = residuals[~np.asarray(solves.success)]
    message = result.message
    if failed.size:
        message += (
            f"; the solve for the direction fell short {_places(failed.size, residuals.size, where)} (largest relative "
            f"residual {failed.max():.1e})"
        )
    truncated = residuals[:0] if solves.truncated is None else residuals[np.asarray(solves.truncated)]
    if truncated.size:
        damped = np.any(np.asarray(solves.damping) > 0)
        how, why = (
            ("damped", "the half-blocks have a ridge")
            if damped
            else ("truncated", "the features of a half-block do not span the samples")
        )
        message += (
            f"; the direction was {how}, residual {truncated.max():.1e}, "
            f"{_places(truncated.size, residuals.size, where)}: {why}, so this is not exact Gauss-Newton"
        )
    return Result(result.code, message, result.time)


def _places(count: int, total: int, where: str) -> str:
    return "at the end" if total == 1 else f"at {count} of {total} {where}"


def stack_solves(solves: Iterable[SolveDiagnostics | None]) -> SolveDiagnostics | None:
    """The diagnostics of several states, stacked along a new first axis; None for a flow without a solve."""
    listed = [solve for solve in solves if solve is not None]
    if not listed:
        return None
    return jax.tree.map(lambda *fields: np.stack(fields), *jax.device_get(listed))


def direction_stats(solves: SolveDiagnostics | None) -> dict[str, int | float | bool]:
    """Stats of the direction solves of a run, most of them of the last one; empty for a flow without a solve.

    **Arguments:** `solves`: the diagnostics of the known states, as from `stack_solves`.
    """
    if solves is None or len(solves.success) == 0:
        return {}
    solve = jax.tree.map(lambda field: field[-1], solves)
    stats: dict[str, int | float | bool] = {
        "final_damping": float(solve.damping),
        "final_rank": int(solve.rank),
        "final_relative_residual": float(solve.relative_residual),
    }
    if solve.iterations is not None:
        stats["final_iterations"] = int(solve.iterations)
    if solve.truncated is not None:
        stats["final_truncated"] = bool(solve.truncated)
    if solves.distance_to_gradient_flow is not None:
        distances = np.asarray(solves.distance_to_gradient_flow)
        stats["final_distance_to_gradient_flow"] = float(distances[-1])
        stats["largest_distance_to_gradient_flow"] = float(np.max(distances))
    return stats
