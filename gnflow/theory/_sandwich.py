"""The a posteriori sandwich: the loss decays within a band of rates that the NTK's extreme eigenvalues set."""

import dataclasses
from typing import ClassVar

import numpy as np

from ._accuracy import LOSS_RESOLUTION
from ._base import AbstractTheorem, Conclusion, Hypotheses, in_stages
from ._claim import Error, Relation, at_times, compare, compare_along
from ._continuity import continuity
from ._convolution import cumulative_integral
from ._curves import Curves
from ._evidence import Evidence
from ._hypotheses import (
    accurate_solves,
    continuous_time,
    increasing_gain,
    invertible,
    monotone_between,
    strong_convexity,
)

# The relative accuracy at which agreement of a rate says something.
_RATE_RESOLUTION = 0.01
_ROUNDING = 1e-9  # of a rate, from the outputs' products and L - L*


@dataclasses.dataclass(frozen=True)
class Sandwich(AbstractTheorem):
    """Theorem P of docs/theorems/sandwich.md, from [A] (arXiv 2302.02904), without its a priori constants.

    Along any run with A invertible and J continuous, (L_0 - L*) exp(-int rho_high) <= L_t - L* <= (L_0 - L*) exp(-int
    rho_low), and the instantaneous rate -d/dt log(L - L*) lies in [rho_low, rho_high] at every time. For the squared
    loss and undamped Gauss-Newton flow the band has no width: the rate is exact.
    """

    name: ClassVar[str] = "sandwich"
    statement: ClassVar[str] = "rho_low <= -d/dt log(L - L*) <= rho_high, with rates from the extreme NTK eigenvalues"
    allows_residuals: ClassVar[bool] = True
    reference: ClassVar[str] = "docs/theorems/sandwich.md, Theorem P; Arbel et al. 2023 (arXiv 2302.02904)"

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """Strong convexity, an invertible Gram matrix at every measured time, a band that is known."""
        yield (
            continuous_time(evidence),
            increasing_gain(evidence),
            *strong_convexity(evidence),
            *accurate_solves(evidence),
        )
        yield (evidence.repeated(),)
        check, spectrum = invertible(evidence)
        passes = (continuity(evidence),) if check.met else ()
        largest = {"largest damping": float(evidence.band.damping.max())}
        yield check, spectrum | largest, *passes, monotone_between("rho")

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """Both sides, for the loss and for the instantaneous rate."""
        band, times, logs = evidence.band, evidence.times, evidence.log_excess
        solves = _solve_error(evidence)
        sides: tuple[tuple[str, str, Relation, np.ndarray, np.ndarray], ...] = (
            ("least", "low", ">=", band.lower, band.lower_error),
            ("most", "high", "<=", band.upper, band.upper_error),
        )
        known = np.flatnonzero(np.isfinite(band.rate))
        rate, where, loss = band.rate[known], at_times(times[known]), evidence.accuracy.loss
        rates, falls, integrals = [], [], []
        for extent, rho, relation, bound, bound_error in sides:
            integral, error = cumulative_integral(times, bound)
            integrals.append(integral)
            uncertain, _ = cumulative_integral(times, bound_error + solves)
            # Relative to the prediction: with a larger error the claim could not fail.
            resolution = LOSS_RESOLUTION * integral
            # The worst of the integration where that is fine enough: as measured it leaves out the interpolation between saves.
            surely = Error(np.where(loss.at_worst <= resolution, loss.at_worst, loss.measured), loss.at_worst)
            name, error = f"the loss falls at {extent} by exp(-int rho_{rho})", (surely + (error + uncertain)).ordered()
            falls.append(compare_along(name, times, logs[0] - logs, relation, integral, error, resolution))
            error = (bound_error + solves)[known] + _ROUNDING * rate
            name, resolution = f"rate {relation} rho_{rho}", _RATE_RESOLUTION * rate
            rates.append(compare(name, rate, relation, bound[known], error, resolution, where))
        slowest, fastest = (np.exp(logs[0] - integral) for integral in integrals)
        later, label = slice(1, None), "decay rate of the loss [1/flow time]"
        curves = (
            evidence.loss_curve(fastest, slowest),
            Curves(times[later], "flow time", label, band.rate[later], band.lower[later], band.upper[later]),
        )
        constants = {"smallest rho_low": float(band.lower.min()), "largest rho_high": float(band.upper.max())}
        return Conclusion((*falls, *rates), constants, curves)


def _solve_error(evidence: Evidence) -> np.ndarray:
    """How much the direction solves may change the rate (k,). 0 for gradient flow, which has no solve.

    A direct solver changes the rate by its relative error (`RateBand.solve_error`). An iterative solver with a residual of
    relative norm p changes g^T A K g by at most p kappa_high ||g||^2, and the rate by p rho_high. For a dual direction this is
    multiplied by 1 + gamma lambda_H sigma_max.
    """
    band, residual = evidence.band, evidence.accuracy.solve_residual
    if evidence.gain is not None and evidence.gain.constant is not None:
        return np.zeros(len(band.rate))
    rate = np.where(np.isfinite(band.rate), band.rate, 0.0)
    return rate * band.solve_error + (residual * band.upper if residual > 0 else 0.0)
