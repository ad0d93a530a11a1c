"""One inequality that a theorem concludes, compared with what a run did."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ._verdict import Verdict


@dataclasses.dataclass(frozen=True)
class Claim:
    """`observed` against `bound`, with the numerical error of the comparison.

    It is violated if the observation is on the wrong side by more than any error that the numbers can have. It holds if the
    observation is on the right side up to `tolerance`, and that is fine enough to tell, or if it is inside by more than the
    tolerance. Otherwise it is undecided: a tolerance beyond the resolution exceeds what the claim tests, which then cannot
    fail and says nothing. It never holds by numbers that are infinite or nan: a record at the infimum of the loss has an
    infinite logarithm with an infinite error, which shows nothing.

    **Attributes:** `name`; `observed`, `bound`: the two sides, at the place that decides; `slack`: how far the
    observation is inside the bound; `tolerance`: the error of the slack (integration, rounding, sparse saves) as
    measured; `error_bound`: as it can be at worst, at least `tolerance`; `resolution`: the largest tolerance at which
    agreement still says something; `where`: the place. All in the unit of the slack. `telling` of `places`: at how many of
    the places where the claim was evaluated it could have failed.
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


def equality(
    name: str,
    observed: float,
    expected: float,
    tolerance: float,
    error_bound: float,
    resolution: float,
    where: str = "",
) -> Claim:
    """The claim that two numbers are equal: their distance is the (negative) slack."""
    slack = -abs(observed - expected)
    return Claim(name, observed, expected, slack, tolerance, error_bound, resolution, where)


def worst_claim(
    name: str,
    observed: np.ndarray,
    bound: np.ndarray,
    slack: np.ndarray,
    tolerance: np.ndarray,
    error_bound: np.ndarray,
    resolution: np.ndarray,
    where: Sequence[str],
    every: bool = False,
) -> Claim:
    """Of the same claim at many places the one that decides: the most violated, else the least decided, else the tightest.

    Places where the error is too large to tell count for nothing as long as there are others; where there are none, or
    where `every` place has to tell, the claim is undecided.

    **Arguments:** arrays over the places, (k,), k >= 1.
    """
    columns = (observed, bound, slack, tolerance, error_bound, resolution)
    rows = np.stack(np.broadcast_arrays(*columns), axis=1).tolist()
    claims = [Claim(name, *row, where=place) for row, place in zip(rows, where, strict=True)]
    silent = [claim for claim in claims if claim.is_silent]
    numbers = {"telling": len(claims) - len(silent), "places": len(claims)}
    telling = claims if every or len(silent) == len(claims) else [claim for claim in claims if not claim.is_silent]
    for verdict in (Verdict.VIOLATED, Verdict.UNDECIDED):
        found = [claim for claim in telling if claim.verdict == verdict]
        if found:
            return dataclasses.replace(min(found, key=lambda claim: claim.slack + claim.tolerance), **numbers)
    return dataclasses.replace(min(telling, key=lambda claim: claim.slack - claim.tolerance), **numbers)
