"""Hypotheses and conclusions as comparisons of numbers that have errors, and what each comparison comes to."""

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
    """A hypothesis `value relation threshold`, with how surely the value is known.

    **Attributes:**

    - `name`: the hypothesis as a formula or a clause.
    - `value`, `relation`, `threshold`.
    - `error`: bound or estimate of the error of value - threshold.
    - `rigorous`: whether value and error are bounds and not estimates.
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
        """A hypothesis that is true or false of the run's parts, without a number."""
        return cls(name, float(true), "==", 1.0, rigorous=rigorous, remark=remark)

    @classmethod
    def unknown(cls, name: str, remark: str) -> "Check":
        """A hypothesis of which it is open whether it is true."""
        return cls(name, math.nan, "==", 1.0, remark=remark)

    @property
    def slack(self) -> float:
        """How far the value is on the right side of the threshold; negative on the wrong one."""
        if self.relation == "==":
            return -abs(self.value - self.threshold)
        return self.threshold - self.value if self.relation in ("<", "<=") else self.value - self.threshold

    @property
    def met(self) -> bool | None:
        """True or False where the slack is larger than its error, None where the error leaves it open."""
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
    """The error of a comparison: agreement is judged by what was measured, accusation by what can be at worst.

    **Attributes:** `measured`, `at_worst`: numbers, or arrays over the places of the comparison, in the unit of its slack.
    """

    # Sums and products with an array are this class's, not arrays of objects.
    __array_ufunc__: ClassVar[None] = None

    measured: Any
    at_worst: Any

    @classmethod
    def known(cls, error: Any) -> "Error":
        """One that is no larger at worst, as that of rounding is."""
        return cls(error, error)

    def __add__(self, other: Any) -> "Error":
        added = other if isinstance(other, Error) else Error.known(other)
        return Error(self.measured + added.measured, self.at_worst + added.at_worst)

    def __mul__(self, factor: Any) -> "Error":
        return Error(self.measured * factor, self.at_worst * factor)

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, at: Any) -> "Error":
        """At some of the places."""
        return Error(self.measured[at], self.at_worst[at])

    def ordered(self) -> "Error":
        """At worst at least as large as measured: what was seen has happened."""
        return Error(self.measured, np.maximum(self.measured, self.at_worst))


@dataclasses.dataclass(frozen=True)
class Claim:
    """`observed` against `bound`, with the numerical error of the comparison.

    It is violated if the observation is on the wrong side by more than any error that the numbers can have. It holds if
    the observation is on the right side up to `tolerance`, and that is fine enough to tell, or if it is inside by more
    than the tolerance. Otherwise it is undecided: a tolerance beyond the resolution exceeds what the claim tests, which
    then cannot fail and says nothing. It never holds by numbers that are infinite or nan: a record at the infimum of
    the loss has an infinite logarithm with an infinite error, which shows nothing.

    **Attributes:**

    - `name`: the conclusion in words or as a formula.
    - `observed`, `bound`: the two sides, at the place that decides.
    - `slack`: how far the observation is inside the bound.
    - `tolerance`: the error of the slack (integration, rounding, sparse saves) as measured, in its unit, as all that follow.
    - `error_bound`: the same as it can be at worst.
    - `resolution`: the largest tolerance at which agreement still says something.
    - `where`: the place.
    - `telling`, `places`: at how many of the places where the claim was evaluated it could have failed.
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
        """Whether the error is so large that the claim could not have failed, and it did not."""
        finite = math.isfinite(self.slack) and math.isfinite(self.tolerance)
        return bool(finite and abs(self.slack) <= self.tolerance and self.tolerance > self.resolution)

    @property
    def only_agrees(self) -> bool:
        """Whether it holds because both sides agree within the error, so that the slack says nothing but that."""
        return bool(self.verdict == Verdict.HOLDS and self.slack <= self.tolerance)

    @property
    def slack_over_error(self) -> float:
        """The slack in units of the tolerance: -1 is the edge of what holds."""
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
    """The claim `observed relation bound`: the slack of an equality is minus the distance.

    Of the same claim at many places the one that decides is returned: the most violated, else the least decided, else
    the tightest. Places where the error is too large to tell count for nothing as long as there are others; where there
    are none, or where `every` place has to tell, the claim is undecided.

    **Arguments:**

    - `observed`, `bound`, `resolution`: numbers, or arrays over the places, (k,), k >= 1.
    - `error`: likewise, an `Error` or what is known to bound it.
    - `where`: the place in words, or a list of k of them.
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
    """`compare` at every one of `times`, (k,), but the first, the start, where nothing has happened that could fail."""
    observed, bound, error, resolution = (each[1:] for each in (observed, bound, error, resolution))
    return compare(name, observed, relation, bound, error, resolution, at_times(times)[1:])


def at_times(times: np.ndarray) -> list[str]:
    """The places of a claim at these times, in words."""
    return [f"at t = {time:.4g}" for time in times]
