"""Hypotheses and conclusions as comparisons of numbers with errors, and the verdict of each comparison."""

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

Relation = Literal[">=", "<=", "=="]


class Verdict(enum.StrEnum):
    """The outcome of checking a theorem on a run."""

    HOLDS = "holds"
    VIOLATED = "violated"
    ASSUMPTIONS_NOT_MET = "assumptions not met"
    UNDECIDED = "undecided"


@dataclasses.dataclass(frozen=True)
class Check:
    """A hypothesis `value relation threshold`, with the error of the value.

    **Attributes:**

    - `name`: the hypothesis as a formula or a clause.
    - `value`, `relation`, `threshold`: the two sides and their relation.
    - `error`: a bound or an estimate of the error of value - threshold.
    - `rigorous`: whether value and error are bounds, and not estimates.
    - `remark`: where they come from, or what to do.
    """

    name: str
    value: float
    relation: Literal["<", "<=", ">", ">=", "=="]
    threshold: float
    error: float = 0.0
    rigorous: bool = True
    remark: str = ""

    @classmethod
    def fact(cls, name: str, true: bool, remark: str = "", rigorous: bool = True) -> "Check":
        """A hypothesis about the parts of the run that is true or false, without a number."""
        return cls(name, float(true), "==", 1.0, rigorous=rigorous, remark=remark)

    @classmethod
    def unknown(cls, name: str, remark: str) -> "Check":
        """A hypothesis that is not known to be true or false."""
        return cls(name, math.nan, "==", 1.0, remark=remark)

    @property
    def slack(self) -> float:
        """The distance of the value from the threshold, positive on the right side and negative on the wrong one."""
        if self.relation == "==":
            return -abs(self.value - self.threshold)
        return self.threshold - self.value if self.relation in ("<", "<=") else self.value - self.threshold

    @property
    def met(self) -> bool | None:
        """True or False if the slack exceeds its error, and None if the error leaves it open."""
        if math.isnan(self.slack) or math.isnan(self.error):
            return None
        if self.relation == "==":
            return -self.slack <= self.error
        if self.slack > self.error:
            return True
        if self.slack < -self.error:
            return False
        if self.error == 0:  # on the threshold, exactly known
            return self.relation in ("<=", ">=")
        return None


@dataclasses.dataclass(frozen=True)
class Error:
    """The error of a comparison. Agreement is judged by the measured error, and a violation by the error at worst.

    **Attributes:**

    - `measured`, `at_worst`: numbers, or arrays over the places of the comparison, in the unit of its slack.
    """

    # Makes NumPy use this class's operators for sums and products with an array, and not make arrays of objects.
    __array_ufunc__: ClassVar[None] = None

    measured: Any
    at_worst: Any

    @classmethod
    def known(cls, error: Any) -> "Error":
        """An error that is not larger at worst, such as that of rounding."""
        return cls(error, error)

    def __add__(self, other: Any) -> "Error":
        added = other if isinstance(other, Error) else Error.known(other)
        return Error(self.measured + added.measured, self.at_worst + added.at_worst)

    def __mul__(self, factor: Any) -> "Error":
        return Error(self.measured * factor, self.at_worst * factor)

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, at: Any) -> "Error":
        """The error at some of the places."""
        return Error(self.measured[at], self.at_worst[at])

    def ordered(self) -> "Error":
        """The error with `at_worst` at least as large as `measured`, because an error that was measured is possible."""
        return Error(self.measured, np.maximum(self.measured, self.at_worst))


@dataclasses.dataclass(frozen=True)
class Claim:
    """`observed` against `bound`, with the numerical error of the comparison.

    The claim is violated if the observation is on the wrong side by more than any error that the numbers can have. It holds if
    the observation is on the right side up to `tolerance`, and the tolerance is at most the resolution; or if it is inside by
    more than the tolerance. Otherwise it is undecided: with a tolerance above the resolution the claim could not fail, and so
    agreement says nothing. It never holds for numbers that are infinite or nan. For instance, a record at the infimum of the
    loss has an infinite logarithm with an infinite error, which shows nothing.

    **Attributes:**

    - `name`: the conclusion in words or as a formula.
    - `observed`, `bound`: the two sides, at the place that decides.
    - `slack`: how far the observation is inside the bound.
    - `tolerance`: the measured error of the slack (integration, rounding, sparse saves), in the unit of the slack.
    - `error_bound`: this error at worst, in the same unit.
    - `resolution`: the largest tolerance at which agreement still says something, in the same unit.
    - `where`: the place.
    - `telling`, `places`: the number of places at which the claim could have failed, and of all places.
    """

    name: str
    observed: float
    bound: float
    slack: float
    tolerance: float
    error_bound: float
    resolution: float
    where: str = ""
    telling: int = 1
    places: int = 1

    @property
    def verdict(self) -> Verdict:
        """Holds, violated or undecided."""
        if any(math.isnan(number) for number in (self.slack, self.tolerance, self.error_bound)):
            return Verdict.UNDECIDED
        if self.slack < -self.error_bound:
            return Verdict.VIOLATED
        if math.isinf(self.slack) or math.isinf(self.tolerance):
            return Verdict.UNDECIDED
        inside = self.slack >= -self.tolerance and self.tolerance <= self.resolution
        return Verdict.HOLDS if inside or self.slack > self.tolerance else Verdict.UNDECIDED

    @property
    def is_silent(self) -> bool:
        """Whether the claim agrees only because its error is too large for it to fail."""
        finite = math.isfinite(self.slack) and math.isfinite(self.tolerance)
        return bool(finite and abs(self.slack) <= self.tolerance and self.tolerance > self.resolution)

    @property
    def only_agrees(self) -> bool:
        """Whether the claim holds because both sides agree within the error, so that the slack itself has no meaning."""
        return bool(self.verdict == Verdict.HOLDS and self.slack <= self.tolerance)

    @property
    def slack_over_error(self) -> float:
        """The slack in units of the tolerance. A claim holds down to -1."""
        return float(self.slack / self.tolerance) if self.tolerance > 0 else math.copysign(math.inf, self.slack)


def compare(
    name: str,
    observed: Any,
    relation: Relation,
    bound: Any,
    error: Error | Any,
    resolution: Any,
    where: str | Sequence[str] = "",
    every: bool = False,
) -> Claim:
    """The claim `observed relation bound`. The slack of an equality is minus the distance.

    For a claim at many places the deciding one is returned: the most violated, else the least decided, else the tightest.
    Places where the error is too large to show anything are ignored as long as there are others. If there are none, or if
    `every` place has to show something, the claim is undecided.

    **Arguments:**

    - `name`: the conclusion in words or as a formula.
    - `observed`, `bound`, `resolution`: numbers, or arrays over the places (k,) with k >= 1.
    - `relation`: ">=", "<=" or "==".
    - `error`: an `Error`, or a bound of the error, as numbers or arrays.
    - `where`: the place in words, or a list of k places.
    - `every`: whether every place has to show something.
    """
    error = error if isinstance(error, Error) else Error.known(error)
    observed, bound = np.asarray(observed, dtype=float), np.asarray(bound, dtype=float)
    with np.errstate(invalid="ignore"):  # two infinities: nan, undecided
        slack = {">=": observed - bound, "<=": bound - observed, "==": -np.abs(observed - bound)}[relation]
    columns = (observed, bound, slack, error.measured, error.at_worst, resolution)
    if isinstance(where, str):
        return Claim(name, *(float(number) for number in columns), where=where)
    rows = np.stack(np.broadcast_arrays(*columns), axis=1).tolist()
    claims = [Claim(name, *row, where=place) for row, place in zip(rows, where, strict=True)]
    telling = [claim for claim in claims if not claim.is_silent]
    numbers = {"telling": len(telling), "places": len(claims)}
    judged = claims if every or not telling else telling
    for verdict in (Verdict.VIOLATED, Verdict.UNDECIDED):
        found = [claim for claim in judged if claim.verdict == verdict]
        if found:
            return dataclasses.replace(min(found, key=lambda claim: claim.slack + claim.tolerance), **numbers)
    return dataclasses.replace(min(judged, key=lambda claim: claim.slack - claim.tolerance), **numbers)


def compare_along(
    name: str, times: np.ndarray, observed: Any, relation: Relation, bound: Any, error: Error, resolution: Any
) -> Claim:
    """`compare` at all `times` (k,) except the first, because at the start nothing can fail."""
    observed, bound, error, resolution = (each[1:] for each in (observed, bound, error, resolution))
    return compare(name, observed, relation, bound, error, resolution, at_times(times)[1:])


def at_times(times: np.ndarray) -> list[str]:
    """The places of a claim at these times, in words."""
    return [f"at t = {time:.4g}" for time in times]
