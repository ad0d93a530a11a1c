"""The accuracy that a run promises, and the second solution that measures it where the estimate carried along cannot."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax.numpy as jnp
import numpy as np

from .._core import Result, ResultCode

CARRIED = "the error carried along"
SECOND = "a second solution"
NO_STEP = "no step was taken"

_REMEDY = (
    "the flow turns faster than its steps resolve; leave rtol to gnflow (rtol=None), give rtol={rtol:.0e} or less, take more "
    "damping, or bring inputs and targets to the scale 1"
)

DEFAULT_RTOL = 1e-3  # for one step: the error of most runs is then a few thousandths (docs/truth.md)

# The default promise, and its least and largest value in units of the tolerance of one step.
_DEFAULT = 0.1
_LEAST, _MOST = 10.0, 200.0
# An estimate may itself be wrong by a factor. It is believed up to the first share of the promise, and only up to the second
# one if it is not an upper estimate or if the velocity may jump, since two solutions may pass a kink on the same wrong side.
_BELIEVED, _BELIEVED_LESS = 0.5, 0.2

# The factors of automatic tightening. The first is mild, for runs that are nearly as accurate as promised.
_MILD, _STRONG = 5.0, 20.0
_STRONG_BELOW = 5e-4
_TIGHTEST_RTOL = 1e-11
_MOST_SOLUTIONS, _MOST_COSTLY_SOLUTIONS = 4, 2
_USUAL_SOLUTIONS = 2  # an accurate run that took more of them names what made it slow

_MOST_FALL = 100.0  # exponent up to which exp is evaluated; beyond it the error exceeds every promise anyway

# Steps that something else than the error limits shorten below the default rtol like those of a method of this order.
_LIMITED_ORDER = 4


def promised_accuracy(rtol: float) -> float:
    """The relative error of the training residual r = sqrt(2 (L - L*)) that a run promises not to exceed at any saved time.

    It is 10%, but at least 10 and at most 200 times the tolerance `rtol` of one step.
    """
    return float(np.clip(_DEFAULT, _LEAST * rtol, _MOST * rtol))


def tighter(rtol: float, mildly: bool = False) -> float:
    """The tolerance of the next solution, always below the default one.

    Below the default tolerance limits on the steps shorten with it (`shortening`), so no two solutions share their steps.

    **Arguments:**

    - `rtol`: the tolerance of the last solution.
    - `mildly`: for models with kinks, where the number of steps grows like 1/rtol: a twentieth would take too many.
    """
    strongly = rtol < _STRONG_BELOW and not mildly
    return max(min(rtol, DEFAULT_RTOL) / (_STRONG if strongly else _MILD), _TIGHTEST_RTOL)


def shortening(rtol: Any) -> Any:
    """The factor by which a limit on the step size is shorter at `rtol` than at the default tolerance.

    Two solutions with the same limited steps would make the same errors, and their difference would not show them.
    """
    return jnp.minimum(1.0, (rtol / DEFAULT_RTOL) ** (1 / _LIMITED_ORDER))


def residuals_of(losses: Any, minimum: float) -> Any:
    """r = sqrt(2 (L - L*)) for losses as NumPy arrays and L* = `minimum`."""
    return np.sqrt(2 * np.maximum(np.asarray(losses, dtype=float) - minimum, 0.0))


class Errors(NamedTuple):
    """The largest relative errors of a solution along the run.

    **Attributes:**

    - `residual`: of the training residual r = sqrt(2 (L - L*)).
    - `test_outputs`: the rms error of the test outputs, relative to how far they have moved at most; 0 without test data.
    """

    residual: float
    test_outputs: float = 0.0

    @property
    def worst(self) -> float:
        """The larger of the two; infinite if one is nan."""
        return math.inf if any(math.isnan(error) for error in self) else max(self)


UNKNOWN = Errors(math.inf, math.inf)


@runtime_checkable
class Compared(Protocol):
    """The part of a `Solution` that this module uses. The attributes are described there."""

    @property
    def rtol(self) -> float: ...
    @property
    def floor(self) -> float: ...
    @property
    def times(self) -> np.ndarray: ...
    @property
    def end(self) -> float: ...
    @property
    def result(self) -> Result: ...
    @property
    def ended(self) -> Any: ...
    @property
    def errs_upwards(self) -> bool: ...
    @property
    def may_jump(self) -> bool: ...
    @property
    def has_kinks(self) -> bool: ...
    @property
    def last_rate(self) -> float: ...
    @property
    def is_costly(self) -> bool: ...
    @property
    def errors(self) -> Errors: ...
    @property
    def test_outputs(self) -> np.ndarray | None: ...
    def residuals(self, minimum: float) -> np.ndarray: ...


_Solution = TypeVar("_Solution", bound=Compared)


@dataclasses.dataclass(frozen=True)
class Judged(Generic[_Solution]):
    """A solution with its errors.

    **Attributes:**

    - `solution`: the solution.
    - `errors`: its estimated errors.
    - `known_from`: where the errors are known from, in words.
    - `promised`: the relative error that the run promises not to exceed.
    - `count`: the number of solutions that were made.
    - `interrupted`: whether the user ended the second solution, so that the errors are not known.
    """

    solution: _Solution
    errors: Errors
    known_from: str
    promised: float
    count: int
    interrupted: bool = False

    @property
    def result(self) -> Result:
        """The result of the solution, or the result that it is inaccurate."""
        found = self.solution.result
        if self.interrupted:
            message = f"{found.message}; but the run was interrupted before its error was known"
            return dataclasses.replace(found, code=ResultCode.INTERRUPTED, message=message)
        right = self.errors.worst <= _believed(self.solution, self.known_from, self.promised)
        if found.failed or (right and self.count <= _USUAL_SOLUTIONS):
            return found
        advice = self.solution.ended.advice
        if right:
            if not advice:
                return found
            slow = f"; it took {self.count} solutions to be as accurate as promised"
            return dataclasses.replace(found, message=f"{found.message}{slow}.{advice}")
        remedy = _REMEDY.format(rtol=tighter(self.solution.rtol, self.solution.has_kinks))
        return Result(
            ResultCode.INACCURATE,
            f"{found.message}; but {self._wrong}: {remedy}{'.' if advice else ''}{advice}",
            found.time,
        )

    @property
    def _wrong(self) -> str:
        """What is not as accurate as promised, and why that is said, as a clause."""
        residual, test_outputs = self.errors
        promise = f"{100 * self.promised:.3g}%"
        if not math.isfinite(self.errors.worst):
            what = "the training residual is" if not math.isfinite(residual) else "test outputs are"
            unknown = "not known to any accuracy (a second solution failed, or cannot be compared)"
            return f"{what} {unknown}, and {promise} is promised"
        what, of = (
            ("the training residual", "") if residual >= test_outputs else ("test outputs", " of how far they moved")
        )
        estimate = f"{100 * self.errors.worst:.3g}%{of} (from {self.known_from})"
        if self.errors.worst > self.promised:
            return f"{what} may be wrong by {estimate}, and {promise} is promised"
        believed = f"{100 * _believed(self.solution, self.known_from, self.promised):.3g}%"
        return (
            f"{what} may be wrong by more than the promised {promise}: the error is estimated as {estimate}, and because such "
            f"an estimate may be several times too small, it is trusted only up to {believed}"
        )


def accurate_solution(
    solve: Callable[[float, _Solution | None], _Solution], rtol: float, automatic: bool, minimum: float
) -> Judged[_Solution]:
    """The run, as accurate as promised if that is possible.

    The error carried along with a solution is an upper estimate as long as steps are short for all that the flow does, and
    too large otherwise. If it exceeds half the promise (or a fifth, if the solver's estimate is not an upper one), a second
    solution with a tighter tolerance is compared with the first. If `automatic`, the tolerance is tightened until one of the
    two estimates is small enough. Otherwise the solution at `rtol` is returned, with the error that was found. A second
    solution that took exactly the same steps shows nothing, and a tighter one is made.

    **Arguments:**

    - `solve`: makes the solution at a tolerance, given the one before it (or None).
    - `rtol`: the first tolerance of one step.
    - `automatic`: whether the tolerance may be tightened.
    - `minimum`: L*.
    """
    promised = promised_accuracy(rtol)
    solution = reference = solve(rtol, None)
    errors, known_from, count = solution.errors, CARRIED, 1
    while (
        errors.worst > _believed(solution, known_from, promised)
        and not solution.result.failed
        and count < (_MOST_COSTLY_SOLUTIONS if reference.is_costly else _MOST_SOLUTIONS)
    ):
        reference = solve(tighter(reference.rtol, reference.has_kinks), reference)
        count += 1
        if reference.result.code == ResultCode.INTERRUPTED:
            return Judged(solution, errors, known_from, promised, count, interrupted=True)
        if not reference.result.failed and _is_the_same(solution, reference, minimum):
            # Something else than the error limits the steps, such as a stop rule with a history. So nothing was compared.
            if automatic:
                solution, errors = reference, reference.errors
            continue
        errors, known_from = _difference(solution, reference, minimum), SECOND
        if not automatic or reference.result.failed:
            break
        solution = reference
        carried = solution.errors
        if carried.worst <= _believed(solution, CARRIED, promised) and carried.worst < errors.worst:
            errors, known_from = carried, CARRIED
    return Judged(solution, errors, known_from, promised, count)


def only_solution(
    solve: Callable[[float, _Solution | None], _Solution], rtol: float, automatic: bool, minimum: float
) -> Judged[_Solution]:
    """The solution at `rtol`, without a promise. The arguments are those of `accurate_solution`."""
    solution = solve(rtol, None)
    return Judged(solution, solution.errors, CARRIED, math.inf, 1)


def _believed(solution: Compared, known_from: str, promised: float) -> float:
    """The error up to which a solution counts as accurate."""
    sure = not solution.may_jump and (known_from != CARRIED or solution.errs_upwards)
    return promised * (_BELIEVED if sure else _BELIEVED_LESS)


def _is_the_same(first: Compared, second: Compared, minimum: float) -> bool:
    """Whether two solutions agree to the last bit although something moves in the run."""
    # A run in which nothing moves agrees with itself at any tolerance, and is right.
    moves = first.test_outputs is not None and np.any(first.test_outputs != first.test_outputs[0])
    residuals = first.residuals(minimum)
    if not moves and np.all(residuals == residuals[0]):
        return False
    pairs = (
        (first.times, second.times),
        (residuals, second.residuals(minimum)),
        (first.test_outputs, second.test_outputs),
    )
    return all(np.array_equal(one, other) for one, other in pairs if one is not None and other is not None)


def _difference(first: Compared, second: Compared, minimum: float) -> Errors:
    """The largest relative differences of two solutions over the times that both saved, without the start.

    The floor of the first is added to the denominators, as in the errors carried along, because residuals below it are
    rounding. If both met a stop rule at different times, the fall of the residual between these times counts as an error, too,
    and so does the difference of the test outputs. The result is infinite if there is nothing to compare or the second failed.
    """
    if second.result.failed:
        return UNKNOWN
    common, here, there = np.intersect1d(first.times, second.times, return_indices=True)
    later = common > 0
    met = all(solution.result.code == ResultCode.STOP_RULE_MET for solution in (first, second))
    at_ends = Errors(0.0)
    if met:
        times = abs(math.log(second.end / first.end)) if not np.any(later) else 0.0
        falls = abs(second.end - first.end) * max(first.last_rate, second.last_rate)
        at_ends = Errors(
            max(times, float(np.expm1(min(falls, _MOST_FALL)))), _test_difference(first, second, [-1], [-1])
        )
    if not np.any(later):
        return at_ends if met else UNKNOWN
    here, there = here[later], there[later]
    one, other = first.residuals(minimum)[here], second.residuals(minimum)[there]
    larger, smaller = np.maximum(one, other), np.minimum(one, other)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(larger == 0, 0.0, (larger - smaller) / (smaller + first.floor))
    at_saves = Errors(_largest(relative), _test_difference(first, second, here, there))
    return Errors(*np.maximum(at_saves, at_ends).tolist())


def _test_difference(first: Compared, second: Compared, here: Any, there: Any) -> float:
    """The largest rms difference of the test outputs at the saves `here` of the first and `there` of the second solution.

    It is relative to how far the outputs have moved at most until then.
    """
    one, other = first.test_outputs, second.test_outputs
    if one is None or other is None:
        return 0.0
    movement = np.maximum.accumulate(_rms(one - one[0]))[here]
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = _rms(one[here] - other[there])
        return _largest(np.where(difference == 0, 0.0, difference / (movement + first.floor)))


def _rms(outputs: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(outputs**2, axis=(1, 2)))


def _largest(values: np.ndarray) -> float:
    return float(np.max(np.where(np.isnan(values), np.inf, values)))
