"""From the end of an integration to a result code with a sentence a person can act on."""

import diffrax
import numpy as np

from .._core import Result, ResultCode
from ..solvers import SolverChoice
from ._measure import Evaluation
from ._stop import AbstractStopRule


def integration_result(
    solution: diffrax.Solution,
    chosen: SolverChoice,
    rules: tuple[AbstractStopRule, ...],
    end: float,
    t1: float | None,
    last: Evaluation,
) -> Result:
    """How an integration by the `chosen` solver ended at flow time `end`, with `last` what was measured there."""
    where = f"at flow time {end:.6g}, training loss {float(last.values['train_loss']):.3e}"
    steps = int(solution.stats["num_steps"])
    if solution.result == diffrax.RESULTS.event_occurred:
        assert solution.ys is not None
        met = rules[int(np.argmin(solution.ys[1][2][0]))]
        return Result(ResultCode.STOP_RULE_MET, f"{met.describe()} {where}", end)
    if solution.result == diffrax.RESULTS.successful:
        reason = (
            f"t1 = {t1:.6g} was reached" if t1 is not None else "the longest flow time was reached, no stop rule met"
        )
        return Result(ResultCode.TIME_REACHED, f"{reason} {where}", end)
    if solution.result == diffrax.RESULTS.max_steps_reached:
        return Result(
            ResultCode.MAX_STEPS_REACHED,
            f"max_steps = {steps} steps were used up {where}; {_why_so_many_steps(chosen)}",
            end,
        )
    if solution.result == diffrax.RESULTS.dt_min_reached:
        return _broken_down(last, where, end)
    return Result(ResultCode.SOLVER_FAILED, f"the solver gave up {where}: {diffrax.RESULTS[solution.result]}", end)


def _why_so_many_steps(chosen: SolverChoice) -> str:
    """What may have made the steps short, and what to do about it."""
    if isinstance(chosen.solver, diffrax.AbstractERK):
        return (
            f"the flow is stiff for the explicit solver {chosen.name!r} (gradient flow on an ill-conditioned Gram matrix) or "
            "the target is out of reach: take solver='exponential' where the flow has a linearisation, allow more steps, or "
            "ask for less."
        )
    return (
        f"the tolerance is tight for this flow and the solver {chosen.name!r} (features that turn fast, a kink of the "
        "activation) or the target is out of reach: loosen rtol, allow more steps, or ask for less."
    )


def _broken_down(last: Evaluation, where: str, end: float) -> Result:
    """Why the step size shrank to nothing, from what the state looks like."""
    if not solved(last):
        return Result(ResultCode.DIRECTION_FAILED, direction_failure(where), end)
    if not np.isfinite(float(last.values["train_loss"])):
        return Result(ResultCode.NON_FINITE, f"the training loss is not finite {where}", end)
    return Result(
        ResultCode.STEP_SIZE_TOO_SMALL,
        f"no step was small enough to be accepted {where}: the velocity is not finite or not continuous nearby (a kink of the "
        "activation, a rank that jumps, tolerances below rounding); loosen rtol, add damping or take a smooth activation.",
        end,
    )


def solved(evaluation: Evaluation) -> bool:
    """Whether the solve for the direction succeeded (or there was none)."""
    return evaluation.diagnostics is None or bool(evaluation.diagnostics.success)


def direction_failure(where: str) -> str:
    """The sentence for a solve that broke down."""
    return (
        f"the solve for the direction broke down {where}: the Gram matrix is not positive definite to working precision; use "
        "the direction solver TruncatedEigh or more damping."
    )


def with_solve_warning(result: Result, evaluations: list[Evaluation]) -> Result:
    """`result` with a note if the solve for the direction fell short at some of these states."""
    failed = [evaluation.diagnostics for evaluation in evaluations if not solved(evaluation)]
    if not failed or result.failed:
        return result
    worst = max(float(diagnostics.relative_residual) for diagnostics in failed if diagnostics is not None)
    note = (
        f"the solve for the direction fell short at {len(failed)} saved states (largest relative residual {worst:.1e})"
    )
    return Result(result.code, f"{result.message}; {note}", result.time)
