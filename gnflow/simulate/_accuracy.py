"""What a run promises of its accuracy, and how a second solution tells where the estimate carried along cannot."""

import dataclasses
import math

import numpy as np

from .._core import Result, ResultCode
from ._solution import Integration, Solution

CARRIED = "the error carried along"
SECOND = "a second solution"

_REMEDY = (
    "the flow turns faster than its steps resolve; leave rtol to gnflow (rtol=None), give rtol={rtol:.0e} or less, take more "
    "damping, or bring inputs and targets to the scale 1"
)

# The default promise, and how far it may be from the tolerance of one step.
_DEFAULT = 0.05
_LEAST_STEPS, _MOST_STEPS = 10.0, 100.0

# Of automatic tightening: the first tolerance after the default, and the factor from one to the next.
_TIGHT_RTOL = 1e-4
_TIGHTER = 20.0
_TIGHTEST_RTOL = 1e-11
_MOST_SOLUTIONS = 4


def promised_accuracy(rtol: float) -> float:
    """The largest relative error of the training residual r = sqrt(2 (L - L*)) at any saved time that a run may have.

    5%, but at least 10 and at most 100 times the tolerance `rtol` of one step.
    """
    return float(np.clip(_DEFAULT, _LEAST_STEPS * rtol, _MOST_STEPS * rtol))


def tighter(rtol: float) -> float:
    """The tolerance of the next solution, at most a twentieth of `rtol`."""
    return max(min(_TIGHT_RTOL, rtol / _TIGHTER), _TIGHTEST_RTOL)


@dataclasses.dataclass(frozen=True)
class Judged:
    """A solution and how wrong it is: `error`, relative, of the training residual, and in words where that is `known_from`;
    `promised`: what it should not be above; `count`: how many solutions it took."""

    solution: Solution
    error: float
    known_from: str
    promised: float
    count: int

    @property
    def result(self) -> Result:
        """The solution's, or that it is inaccurate."""
        found = self.solution.result
        if found.failed or self.error <= self.promised:
            return found
        return Result(
            ResultCode.INACCURATE,
            f"{found.message}; but the training residual may be wrong by {100 * self.error:.3g}% (from {self.known_from}), "
            f"more than the {100 * self.promised:.3g}% promised: {_REMEDY.format(rtol=tighter(self.solution.rtol))}",
            found.time,
        )


def accurate_solution(integration: Integration, rtol: float | None, default_rtol: float, minimum: float) -> Judged:
    """The run, as accurate as promised where that can be had.

    The error carried along with a solution is an upper estimate where steps are short for all that the flow does, and says
    too much where they are not. Above the promise a second solution, with a tolerance at most a twentieth, is compared with
    the first. Without `rtol` the tolerance is tightened until either of the two is inside the promise; with it, the solution
    with this tolerance is returned, whatever it is.

    **Arguments:** `rtol`: what the user asked for, or None; `default_rtol`: to begin with then; `minimum`: L*.
    """
    automatic = rtol is None
    tolerance = default_rtol if rtol is None else rtol
    promised = promised_accuracy(tolerance)
    first = integration.solve(tolerance, promised if automatic else math.inf)
    if first.error <= promised or (first.result.failed and not first.given_up):
        return Judged(first, first.error, CARRIED, promised, 1)
    previous = first
    for count in range(2, _MOST_SOLUTIONS + 1):
        tolerance = tighter(tolerance)
        solution = integration.solve(tolerance)
        if automatic and (solution.error <= promised or solution.result.failed):
            return Judged(solution, solution.error, CARRIED, promised, count)
        if not previous.given_up:
            error = _difference(previous, solution, minimum)
            if not automatic:
                return Judged(previous, error, SECOND, promised, count)
            if error <= promised or count == _MOST_SOLUTIONS:
                return Judged(solution, error, SECOND, promised, count)
        previous = solution
    raise AssertionError("the last solution is returned in the loop")


def _difference(first: Solution, second: Solution, minimum: float) -> float:
    """The largest relative difference of two solutions' residuals over the times that both saved, the start left out.

    Where they have no such time and both met a stop rule, the difference of the logarithms of the times at which they did.
    Infinite where there is nothing to compare, or where the second failed.
    """
    if second.result.failed:
        return math.inf
    common, here, there = np.intersect1d(first.times, second.times, return_indices=True)
    later = common > 0
    if not np.any(later):
        met = all(solution.result.code == ResultCode.STOP_RULE_MET for solution in (first, second))
        return abs(math.log(second.end / first.end)) if met else math.inf
    one, other = first.residuals(minimum)[here[later]], second.residuals(minimum)[there[later]]
    larger, smaller = np.maximum(one, other), np.minimum(one, other)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(larger > 0, larger / smaller - 1, 0.0)
    return float(np.max(np.where(np.isnan(relative), np.inf, relative)))
