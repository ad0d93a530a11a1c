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
    tolerance. Otherwise it is undecided. It never holds by numbers that are infinite or nan: a record at the infimum of the
    loss has an infinite logarithm with an infinite error, which shows nothing.

    **Attributes:** `name`; `observed`, `bound`: the two sides, at the place that decides; `slack`: how far the
    observation is inside the bound; `tolerance`: the error of the slack (integration, rounding, sparse saves) as
    measured; `error_bound`: as it can be at worst, at least `tolerance`; `resolution`: the largest tolerance at which
    agreement still says something; `where`: the place. All in the unit of the slack.
    """

    name: str
    observed: float
    bound: float
    slack: float
    tolerance: float
    error_bound: float
    resolution: float
    where: str = ""

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
) -> Claim:
    """Of the same claim at many places the one that decides: the most violated, else the least decided, else the tightest.

    **Arguments:** arrays over the places, (k,), k >= 1.
    """
    columns = (observed, bound, slack, tolerance, error_bound, resolution)
    rows = np.stack(np.broadcast_arrays(*columns), axis=1).tolist()
    claims = [Claim(name, *row, where=place) for row, place in zip(rows, where, strict=True)]
    for verdict in (Verdict.VIOLATED, Verdict.UNDECIDED):
        found = [claim for claim in claims if claim.verdict == verdict]
        if found:
            return min(found, key=lambda claim: claim.slack + claim.tolerance)
    return min(claims, key=lambda claim: claim.slack - claim.tolerance)
