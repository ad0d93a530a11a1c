"""Power laws fitted to samples over seeds."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ._claim import Error
from ._rate import slope_coefficients, student_quantile

_RESAMPLES = 400
# Levels of the two intervals: agreement is judged by the first, and a violation by the second.
_AGREEMENT, _VIOLATION = 0.99, 0.999


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """value = constant * size^slope, fitted to a statistic of samples over seeds.

    **Attributes:**

    - `slope`, `constant`: the fitted numbers.
    - `values`: the statistic at each size (k,).
    - `standard_error`: the standard error of the slope.
    - `error`: half of its 99% interval, at worst half of its 99.9% interval, plus the effect of finite sizes.
    """

    slope: float
    constant: float
    values: np.ndarray
    standard_error: float
    error: Error

    @property
    def words(self) -> str:
        """The slope with its interval."""
        return f"({self.slope:.3f} +- {self.error.measured:.3f}, 99%, finite widths included)"


def fit_power_law(
    sizes: np.ndarray,
    samples: list[np.ndarray],
    statistic: Callable[[np.ndarray], float],
    noise: np.ndarray,
    shift: np.ndarray,
    rng: np.random.Generator,
) -> PowerLaw:
    """A weighted line through log(statistic) against log(size), with an interval from the bootstrap over seeds.

    A replicate draws seeds with replacement, the same at every size (sizes share their seeds' particles). Weights are
    the inverse variances of log(statistic) over the replicates. The slope is corrected by its bootstrap bias (Efron and
    Tibshirani 1993, Section 10.6). Its standard error, times sqrt(S/(S - 1)), is multiplied by Student's quantile with
    S - 1 degrees of freedom: for few seeds plain quantiles of the replicates are too narrow. Finite sizes add, in
    quadrature, twice the change of the slope without the smallest size, which is what a relative correction O(1/size)
    leaves; and the slope of `shift`, twice in the wider interval.

    **Arguments:**

    - `sizes`: the sizes (k,), k >= 2.
    - `samples`: for each size an array (S, ...) whose first axis are the seeds.
    - `statistic`: a function of such an array that returns a number, whose modulus is fitted.
    - `noise`: the relative error (k,) of the statistic from other causes than sampling.
    - `shift`: how much log(statistic) may differ from the power law at each size (k,), from an estimate of the next order.
    """
    seeds = len(samples[0])
    draws = rng.integers(0, seeds, size=(_RESAMPLES, seeds))
    values = np.asarray([statistic(s) for s in samples])
    replicates = np.asarray([[statistic(s[draw]) for s in samples] for draw in draws])
    # A statistic whose sign the seeds leave open has no logarithm to fit.
    if np.any(values == 0) or np.any(np.mean(np.sign(replicates) != np.sign(values), axis=0) > (1 - _VIOLATION) / 2):
        unknown = float("nan")
        return PowerLaw(unknown, unknown, values, np.inf, Error.known(np.inf))
    logs, logs_again = np.log(np.abs(values)), np.log(np.maximum(np.abs(replicates), 1e-300))
    variances = np.var(logs_again, axis=0) + noise**2 + 1e-24

    def slope_of(columns: np.ndarray, first: int = 0) -> np.ndarray:
        return np.atleast_2d(columns)[:, first:] @ slope_coefficients(np.log(sizes[first:]), 1 / variances[first:])

    again = slope_of(logs_again)
    observed = float(slope_of(logs)[0])
    slope = 2 * observed - float(np.mean(again))
    weights = slope_coefficients(np.log(sizes), 1 / variances)
    error = float(np.sqrt(np.var(again) * seeds / (seeds - 1) + np.sum((weights * noise) ** 2)))
    finite = 2 * abs(observed - float(slope_of(logs, 1)[0])) if len(sizes) > 2 else 0.0
    shifted = abs(float(weights @ shift))
    half, wide = (
        float(np.hypot(student_quantile(seeds - 1, 0.5 + level / 2) * error, finite) + times * shifted)
        for level, times in ((_AGREEMENT, 1), (_VIOLATION, 2))
    )
    constant = float(np.exp(np.average(logs - slope * np.log(sizes), weights=1 / variances)))
    return PowerLaw(slope, constant, values, error, Error(half, wide))
