"""Integrals of decaying exponentials times functions that are known at a few times, with bounds on both sides."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ._accuracy import SAFETY
from ._claim import Error

# With fewer times, leaving out every second one does not show how accurate the trapezoidal rule is.
_FEWEST_TIMES = 5


@dataclasses.dataclass(frozen=True)
class Integral:
    """The integral of a function that is known at n times, up to each of these times.

    **Attributes:**

    - `low`, `high`: bounds (n,), if the function is monotone between the times.
    - `value`: the integral (n,).
    - `estimate`: an estimate of its error (n,).
    """

    low: np.ndarray
    high: np.ndarray
    value: np.ndarray
    estimate: np.ndarray

    @property
    def error(self) -> Error:
        """The error of `value`. The bounds assume a function that is monotone between the times, so an error that the rule
        cannot estimate is not bounded by them either."""
        return Error(np.minimum(self.estimate, self.high - self.low), np.maximum(self.high - self.value, self.estimate))


def cumulative_integral(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, Error]:
    """The integral from times[0] to each time by the trapezoidal rule, and its error, all (k,).

    The measured error is that of values that are monotone between the times. At worst it is twice the change when every second
    time is left out, if that is larger. With fewer than five times, which show nothing about the values in between, it is
    infinite at worst.
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
    """The change of the values `whole` at each time if `rule` is applied to every second time only; inf if unknown."""
    change = np.full(len(times), np.inf)
    change[0] = 0.0
    for offset in (0, 1):
        kept = np.unique(np.concatenate([[0], np.arange(offset, len(times), 2)]))
        if len(kept) > 2:
            change[kept[1:]] = np.abs(rule(kept) - whole[kept])[1:]
    if len(times) > 2:
        change[1] = change[2]  # a single interval has no time to leave out
    return change


def _trapezoidal(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.diff(times) * (values[1:] + values[:-1]) / 2)])


def movement_bound(
    times: np.ndarray, movement: np.ndarray, size: np.ndarray, slope: np.ndarray, rate: float
) -> Integral:
    """int_0^t exp(-rate (t - s)) movement(s) size(s) ds at each time.

    `low` and `high` assume that movement(s), and the rate at which size(s) decays, are monotone between the times.

    **Arguments:**

    - `times`: the times (n,), the first of which is 0.
    - `movement`: ||B_s - B_0||/N (n,).
    - `size`: ||f_s - y|| (n,), positive.
    - `slope`: -d/ds log size(s) (n,).
    - `rate`: b_0/N.
    """
    low, high = np.zeros(len(times)), np.zeros(len(times))
    for i in range(len(times) - 1):
        step, ends = times[i + 1] - times[i], [i, i + 1]
        slow, fast = slope[ends].min(), slope[ends].max()
        # The size lies between exponentials through both ends of the interval.
        upper = min(size[i] * _overlap(rate, slow, step), size[i + 1] * step * _mean_exponential((rate - fast) * step))
        lower = max(size[i] * _overlap(rate, fast, step), size[i + 1] * step * _mean_exponential((rate - slow) * step))
        decay = np.exp(-rate * step)
        high[i + 1] = decay * high[i] + movement[ends].max() * upper
        low[i + 1] = decay * low[i] + movement[ends].min() * min(lower, upper)
    value, error = _interpolated(times, (movement * size)[:, None], np.asarray([rate]))
    return Integral(low, high, value, error)


def mode_bound(times: np.ndarray, drive: np.ndarray, rates: np.ndarray) -> Integral:
    """|| (int_0^t exp(-rate_j (t - s)) |drive_j(s)| ds)_j || at each time.

    `low` and `high` assume that every drive_j is monotone between the times.

    **Arguments:**

    - `times`: the times (n,), the first of which is 0.
    - `drive`: q_j . (B_s - B_0) r_s / N (n, k).
    - `rates`: b_j/N (k,).
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
    """The norm of the integrals with size (n, k) interpolated between the times, and its error.

    The error is twice the change when every second time is left out. The rule has order 2, so for a smooth function and even
    times a third of the change would be the error. If times grow by a factor and the longest interval is not split, it is the
    whole change.
    """
    value = _quadrature(times, size, rates)
    error = SAFETY * _change_without_every_second(
        times, value, lambda kept: _quadrature(times[kept], size[kept], rates)
    )
    # Two values may agree by chance, but hardly at several neighbouring times, so the largest of the neighbours counts.
    return value, np.maximum(error, np.maximum(np.append(error[1:], 0.0), np.append(0.0, error[:-1])))


def _quadrature(times: np.ndarray, size: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """|| (int_0^t exp(-rate_j (t - s)) size_j(s) ds)_j || (n,).

    Between the times size_j is interpolated exponentially where it falls, and linearly where it rises.
    """
    total = np.zeros(size.shape)
    for i in range(len(times) - 1):
        step = times[i + 1] - times[i]
        x = rates * step
        whole = _mean_exponential(x)
        # int_0^1 u exp(-x (1 - u)) du, the weight of the interval's end, by its series where the closed form loses digits.
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
    """(1 - exp(-x))/x, with the value 1 at 0, and infinite on overflow."""
    x = np.asarray(x, dtype=float)
    with np.errstate(over="ignore"):
        return np.where(x != 0, -np.expm1(-x) / np.where(x != 0, x, 1.0), 1.0)
