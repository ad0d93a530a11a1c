"""Integrals of decaying exponentials against what was measured at a few times, with bounds on either side."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ._accuracy import SAFETY
from ._claim import Error

# With fewer times leaving out every second one does not tell how good the trapezoidal rule is.
_FEWEST_TIMES = 5


@dataclasses.dataclass(frozen=True)
class Integral:
    """An integral of a function that is known at some times, at each of them: (n,).

    **Attributes:** `low`, `high`: bounds that hold if the function is monotone between the times; `value`, with an
    `estimate` of its error.
    """

    low: np.ndarray
    high: np.ndarray
    value: np.ndarray
    estimate: np.ndarray

    @property
    def error(self) -> Error:
        """Of `value`. The bounds hold for what is monotone between the times; where the rule cannot tell its error,
        neither can they."""
        return Error(np.minimum(self.estimate, self.high - self.low), np.maximum(self.high - self.value, self.estimate))


def cumulative_integral(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, Error]:
    """The integral from times[0] to each time by the trapezoidal rule, and its error; all (k,).

    The error is that of values which are monotone between the times. At worst it is that or, where it is larger, twice what
    leaving out every second time changes; infinite with fewer than five times, which show nothing of what is between them.
    """
    integral, steps = _trapezoidal(times, values), np.diff(times)
    error = np.concatenate([[0.0], np.cumsum(steps * np.abs(np.diff(values)) / 2)])
    if len(times) < _FEWEST_TIMES:
        return integral, Error(error, np.where(np.arange(len(times)) > 0, np.inf, 0.0))
    change = _change_without_every_second(times, integral, lambda kept: _trapezoidal(times[kept], values[kept]))
    return integral, Error(error, np.maximum(error, SAFETY * np.maximum.accumulate(change)))


def _change_without_every_second(
    times: np.ndarray, whole: np.ndarray, rule: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """By how much the values `whole` of a rule at the times change if it `rule`s over every second of them; inf where
    unknown."""
    change = np.full(len(times), np.inf)
    change[0] = 0.0
    for offset in (0, 1):
        kept = np.unique(np.concatenate([[0], np.arange(offset, len(times), 2)]))
        if len(kept) > 2:
            change[kept[1:]] = np.abs(rule(kept) - whole[kept])[1:]
    if len(times) > 2:
        change[1] = change[2]  # one interval, with nothing to leave out
    return change


def _trapezoidal(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.diff(times) * (values[1:] + values[:-1]) / 2)])


def movement_bound(
    times: np.ndarray, movement: np.ndarray, size: np.ndarray, slope: np.ndarray, rate: float
) -> Integral:
    """int_0^t exp(-rate (t - s)) movement(s) size(s) ds at each time.

    Its `low` and `high` take movement(s), and the rate at which size(s) decays, for monotone between the times.

    **Arguments:** `times` (n,), the first 0; `movement` (n,): ||B_s - B_0||/N; `size` (n,): ||f_s - y||, positive;
    `slope` (n,): -d/ds log size(s); `rate`: b_0/N.
    """
    low, high = np.zeros(len(times)), np.zeros(len(times))
    for i in range(len(times) - 1):
        step, ends = times[i + 1] - times[i], [i, i + 1]
        slow, fast = slope[ends].min(), slope[ends].max()
        # The size lies above and below exponentials through either end.
        upper = min(size[i] * _overlap(rate, slow, step), size[i + 1] * step * _mean_exponential((rate - fast) * step))
        lower = max(size[i] * _overlap(rate, fast, step), size[i + 1] * step * _mean_exponential((rate - slow) * step))
        decay = np.exp(-rate * step)
        high[i + 1] = decay * high[i] + movement[ends].max() * upper
        low[i + 1] = decay * low[i] + movement[ends].min() * min(lower, upper)
    value, error = _interpolated(times, (movement * size)[:, None], np.asarray([rate]))
    return Integral(low, high, value, error)


def mode_bound(times: np.ndarray, drive: np.ndarray, rates: np.ndarray) -> Integral:
    """|| (int_0^t exp(-rate_j (t - s)) |drive_j(s)| ds)_j || at each time.

    Its `low` and `high` take every drive_j for monotone between the times.

    **Arguments:** `times` (n,), the first 0; `drive` (n, k): q_j . (B_s - B_0) r_s / N; `rates` (k,): b_j/N.
    """
    size = np.abs(drive)
    low, high = np.zeros(drive.shape), np.zeros(drive.shape)
    for i in range(len(times) - 1):
        step = times[i + 1] - times[i]
        decay, weight = np.exp(-rates * step), step * _mean_exponential(rates * step)
        same_sign = drive[i] * drive[i + 1] > 0
        least = np.where(same_sign, np.minimum(size[i], size[i + 1]), 0.0)
        high[i + 1] = decay * high[i] + weight * np.maximum(size[i], size[i + 1])
        low[i + 1] = decay * low[i] + weight * least
    value, error = _interpolated(times, size, rates)
    return Integral(np.linalg.norm(low, axis=1), np.linalg.norm(high, axis=1), value, error)


def _interpolated(times: np.ndarray, size: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integrals' norm with size (n, k) interpolated between the times, and its error: twice what leaving out every
    second one changes.

    The rule is of second order: of that change a third would be the error of a smooth function at even times, and all
    of it where times grow by a factor and the longest interval is not split.
    """
    value = _quadrature(times, size, rates)
    error = SAFETY * _change_without_every_second(
        times, value, lambda kept: _quadrature(times[kept], size[kept], rates)
    )
    # Two values may agree by chance; at neighbours they hardly do.
    return value, np.maximum(error, np.maximum(np.append(error[1:], 0.0), np.append(0.0, error[:-1])))


def _quadrature(times: np.ndarray, size: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """|| (int_0^t exp(-rate_j (t - s)) size_j(s) ds)_j ||, (n,): size_j exponential between the times where it falls,
    linear where it rises."""
    total = np.zeros(size.shape)
    for i in range(len(times) - 1):
        step = times[i + 1] - times[i]
        x = rates * step
        whole = _mean_exponential(x)
        # int_0^1 u exp(-x (1 - u)) du, the weight of the interval's end; its series where the closed form loses digits.
        end = np.where(x > 1e-4, (1 - whole) / np.where(x > 1e-4, x, 1.0), 0.5 - x / 6)
        linear = size[i] * (whole - end) + size[i + 1] * end
        falls = (size[i] > size[i + 1]) & (size[i + 1] > 0)
        fall = np.log(np.where(falls, size[i], 1.0)) - np.log(np.where(falls, size[i + 1], 1.0))
        exponential = size[i] * np.exp(-np.minimum(x, fall)) * _mean_exponential(np.abs(x - fall))
        total[i + 1] = np.exp(-x) * total[i] + step * np.where(falls, exponential, linear)
    return np.linalg.norm(total, axis=1)


def _overlap(first: float, second: float, step: float) -> float:
    """int_0^step exp(-first (step - u)) exp(-second u) du."""
    return float(step * np.exp(-min(first, second) * step) * _mean_exponential(np.abs(first - second) * step))


def _mean_exponential(x: np.ndarray | float) -> np.ndarray:
    """(1 - exp(-x))/x, 1 at 0; infinite where that overflows."""
    x = np.asarray(x, dtype=float)
    with np.errstate(over="ignore"):
        return np.where(x != 0, -np.expm1(-x) / np.where(x != 0, x, 1.0), 1.0)
