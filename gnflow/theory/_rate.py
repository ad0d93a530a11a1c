"""Fit the rate of an exponential decay to a curve, with its uncertainty."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from .._core import ConfigError

_FEWEST_POINTS = 5


@dataclasses.dataclass(frozen=True)
class RateFit:
    """L - L* ~ exp(-rate t) over a window.

    **Attributes:**

    - `rate`: minus the slope of log(L - L*) against flow time, in 1/flow time.
    - `interval`: its confidence interval.
    - `r_squared`: R^2 of the weighted line.
    - `window`: the first and the last time used.
    - `num_points`: the number of points used.
    - `slope_change`: the difference of the slopes in the two halves of the window, relative to the slope.
    - `is_linear`: whether this is at most the `linearity` of the fit. If not, the curve is not a single exponential (for
      gradient flow it is a sum of many), and the rate is not that of a mode.
    """

    rate: float
    interval: tuple[float, float]
    r_squared: float
    window: tuple[float, float]
    num_points: int
    slope_change: float
    is_linear: bool

    def __str__(self) -> str:
        """One line, with a warning where the decay is not exponential."""
        low, high = self.interval
        text = (
            f"rate {self.rate:.6g} [{low:.6g}, {high:.6g}] over t = {self.window[0]:.4g} to {self.window[1]:.4g} "
            f"({self.num_points} points, R^2 = {self.r_squared:.6f})"
        )
        return text if self.is_linear else f"{text}; not exponential: the slope changes by {self.slope_change:.0%}"


def fit_rate(
    times: ArrayLike,
    excess: ArrayLike,
    window: tuple[float, float] | None = None,
    confidence: float = 0.95,
    linearity: float = 0.05,
) -> RateFit:
    """Fit log(L - L*) = c - rate t by least squares over a window.

    Each point counts by the time it stands for (the trapezoidal rule's weights), so that saves spread over the logarithm of
    time do not make the start of the run count for all of it. The interval is Student's for this slope where the points
    scatter about the line independently and equally: it speaks of the fit, not of the integration (for that: `rate_error`).

    **Arguments:**

    - `times` (n,): ascending, in flow time.
    - `excess` (n,): L - L*; points where it is not positive are left out.
    - `window`: first and last time to use, None for all.
    - `confidence`: of the interval.
    - `linearity`: the relative change of the slope between the halves of the window above which the decay is flagged.

    **Raises:** `ConfigError` for arrays that do not match, times that are not finite and ascending, a confidence
    outside (0, 1), or fewer than 5 points in the window.
    """
    t, values = _ascending(times), np.asarray(excess, dtype=float)
    if t.shape != values.shape:
        raise ConfigError(f"times {t.shape} and excess {values.shape} must be vectors of one length.")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence = {confidence!r}; expected a number between 0 and 1, such as 0.95.")
    first, last = (t[0], t[-1]) if window is None else window
    used = (t >= first) & (t <= last) & (values > 0) & np.isfinite(values)
    if used.sum() < _FEWEST_POINTS:
        raise ConfigError(
            f"{used.sum()} points lie in the window from {first:.4g} to {last:.4g}; a rate with an interval takes at least "
            f"{_FEWEST_POINTS}: widen the window or save more often."
        )
    t, logs = t[used], np.log(values[used])
    slope, error, r_squared = _weighted_line(t, logs)
    half = (t[0] + t[-1]) / 2
    early, late = t <= half, t >= half
    if min(early.sum(), late.sum()) < 2:  # few points lie in one half of the time: halve the points instead
        early = np.arange(len(t)) <= len(t) // 2
        late = ~early | (np.arange(len(t)) == len(t) // 2)
    change = _secant(t[late], logs[late]) - _secant(t[early], logs[early])
    slope_change = float(abs(change) / max(abs(slope), np.finfo(float).tiny))
    width = student_quantile(len(t) - 2, (1 + confidence) / 2) * error
    return RateFit(
        rate=-slope,
        interval=(-slope - width, -slope + width),
        r_squared=r_squared,
        window=(float(t[0]), float(t[-1])),
        num_points=len(t),
        slope_change=slope_change,
        is_linear=slope_change <= linearity,
    )


def rate_error(times: ArrayLike, log_errors: ArrayLike) -> float:
    """The error of the rate of `fit_rate` if log(L - L*) has errors of at most `log_errors` (n,) at the times used (n,).

    The rate is a linear function of the logarithms, so this is a bound, and it is attained. The unit is 1/flow time.

    **Raises:** `ConfigError` for times that are not finite and ascending, or fewer than two of them.
    """
    t = _ascending(times)
    return float(np.sum(np.abs(slope_coefficients(t, _weights(t))) * np.asarray(log_errors, dtype=float)))


def _ascending(times: ArrayLike) -> np.ndarray:
    t = np.asarray(times, dtype=float)
    if t.ndim != 1 or len(t) < 2 or not np.all(np.isfinite(t)) or np.any(np.diff(t) <= 0):
        raise ConfigError(f"times of shape {t.shape} must be a vector of at least two finite numbers, ascending.")
    return t


def _secant(t: np.ndarray, values: np.ndarray) -> float:
    return float((values[-1] - values[0]) / (t[-1] - t[0]))


def _weights(t: np.ndarray) -> np.ndarray:
    """The share of the window that each point stands for."""
    halves = np.diff(t, prepend=t[0], append=t[-1])
    return (halves[1:] + halves[:-1]) / (2 * (t[-1] - t[0]))


def _weighted_line(t: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Slope, its standard error and R^2 of the line through the points, each weighted by the time it stands for."""
    weights = _weights(t)
    coefficients = slope_coefficients(t, weights)
    around = values - weights @ values
    slope = float(coefficients @ around)
    residuals = around - slope * (t - weights @ t)
    total = float(weights @ around**2)
    # The variance of one point comes from the unweighted line: only for its residuals is the sum of squares over n - 2
    # free of bias. About the weighted line, which follows the last points, the others scatter by more than their error.
    plain = np.polynomial.Polynomial.fit(t, values, 1)
    variance = float(np.sum((values - plain(t)) ** 2)) / (len(t) - 2)
    error = float(np.sqrt(variance * np.sum(coefficients**2)))
    r_squared = 1 - float(weights @ residuals**2) / total if total > 0 else 1.0
    return slope, error, r_squared


def slope_coefficients(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The a, (n,), with slope = a . y for the weighted least-squares line through the points (x, y)."""
    centred = x - np.average(x, weights=weights)
    return weights * centred / (weights @ centred**2)


def student_quantile(degrees_of_freedom: int, probability: float) -> float:
    """The t below which a variable of Student's distribution lies with this probability.

    `scipy.special.stdtrit` is what `scipy.stats.t.ppf` calls; `scipy.stats` takes longer to load than most runs of a theorem.
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))
