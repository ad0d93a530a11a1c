"""From the end of an integration to a result code with a sentence a person can act on."""

from collections.abc import Iterable

import diffrax
import jax
import numpy as np

from .._core import Result, ResultCode
from ..geometry import SolveDiagnostics
from ..solvers import SolverChoice
from ._measure import Evaluation
from ._stop import AbstractStopRule

FIRST_LOSS = "the training loss of the initial model is not finite"


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

    **Arguments:** `too_long`: of the method; `relative_residual`: of the direction, None for a flow that solves for nothing;
    `loss`: where the direction was looked for; `loss_after`: behind the step, where that is known; `name`: of the loss.
    """
    where = f"at step {step}"
    # A loss that is no number has no direction either; that is the step's fault and not the solve's.
    if np.isfinite(loss) and relative_residual is not None and not np.isfinite(relative_residual):
        return Result(ResultCode.DIRECTION_FAILED, direction_failure(where), float(step))
    if np.isfinite(loss) and np.isfinite(loss_after):
        return None
    if step == 0:
        return Result(ResultCode.NON_FINITE, FIRST_LOSS, 0.0)
    return Result(ResultCode.NON_FINITE, f"{name} is not finite {where}: {too_long}", float(step))


def with_solve_warning(result: Result, solves: SolveDiagnostics | None, where: str = "saved states") -> Result:
    """`result` with a note if some of the directions were not solved for, or are truncated.

    **Arguments:** `solves`: of several states as `stack_solves` gives them, of one where the end alone is known; `where`: what
    several states are, in the plural.
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
        message += (
            f"; the direction was truncated, residual {truncated.max():.1e}, "
            f"{_places(truncated.size, residuals.size, where)}: the features of a half-block do not span the samples, so this "
            "is not exact Gauss-Newton"
        )
    return Result(result.code, message, result.time)


def _places(count: int, total: int, where: str) -> str:
    return "at the end" if total == 1 else f"at {count} of {total} {where}"


def stack_solves(solves: Iterable[SolveDiagnostics | None]) -> SolveDiagnostics | None:
    """The solves of several states as one whose fields have a further, first axis; None for a flow that solves for nothing."""
    listed = [solve for solve in solves if solve is not None]
    if not listed:
        return None
    return jax.tree.map(lambda *fields: np.stack(fields), *jax.device_get(listed))


def direction_stats(solve: SolveDiagnostics | None) -> dict[str, int | float | bool]:
    """How the last direction of a run was solved for; nothing for a flow that solves for nothing."""
    if solve is None:
        return {}
    stats: dict[str, int | float | bool] = {
        "final_damping": float(solve.damping),
        "final_rank": int(solve.rank),
        "final_relative_residual": float(solve.relative_residual),
    }
    return stats if solve.truncated is None else {**stats, "final_truncated": bool(solve.truncated)}
