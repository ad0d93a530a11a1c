"""When a loss first reached a level, between the times at which it was saved."""

import math

import numpy as np

_SLACK = 1e-3  # a run that stops at a level ends slightly above or below it, by the accuracy of the root search


def time_to_level(times: np.ndarray, values: np.ndarray, level: float) -> float:
    """The time at which `values` first reached `level` from above; inf if they did not.

    Between saved times the logarithm of the values is interpolated linearly in time.

    **Arguments:**

    - `times`: ascending (n,).
    - `values`: the values (n,). Those that are not positive count as the smallest positive number.
    - `level`: a positive number.
    """
    below = np.flatnonzero(values <= level * (1 + _SLACK))
    if not below.size:
        return math.inf
    after = int(below[0])
    if after == 0 or not np.isfinite(values[after - 1]):  # nothing can be interpolated from a value that is not finite
        return float(times[after])
    before, reached = np.log(np.maximum(values[after - 1 : after + 1], np.finfo(float).tiny))
    part = (before - math.log(level)) / (before - reached)
    return float(times[after - 1] + min(part, 1.0) * (times[after] - times[after - 1]))
