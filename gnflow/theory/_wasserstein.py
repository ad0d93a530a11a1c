"""Wasserstein-2 distances between clouds of equally weighted particles."""

import dataclasses
import math
from typing import Any

import jax.random as jr
import numpy as np

from .._core import ConfigError, DataError

_LARGEST = (
    4096  # particles of the larger cloud: the assignment takes cubic time and a matrix of their squared distances
)


@dataclasses.dataclass(frozen=True)
class SlicedDistance:
    """A sliced Wasserstein distance.

    **Attributes:**

    - `value`: the distance.
    - `standard_error`: its Monte Carlo error over the directions, to first order; 0 in one dimension.
    """

    value: float
    standard_error: float


def wasserstein2(first: Any, second: Any) -> float:
    """W_2 = min over couplings of (E |x - y|^2)^(1/2) between two clouds, in the units of the particles; exact up to rounding.

    Between equally many particles of equal weight an optimal coupling is a permutation (Peyre and Cuturi,
    "Computational Optimal Transport", 2019, Proposition 2.1), found by the Hungarian method. If one cloud has k times
    as many particles, each of the other's stands for k of them.

    **Arguments:**

    - `first`, `second`: clouds (m, d) and (n, d), or (m,) and (n,) for d = 1. One of m and n is a multiple of the other, and
      both are at most 4096.

    **Raises:** `DataError` for clouds of other shapes or with entries that are not finite; `ConfigError` for sizes of
    which neither is a multiple of the other, or that are too large.
    """
    x, y = _clouds(first, second)
    if len(x) > len(y):
        x, y = y, x
    if len(y) % len(x):
        raise ConfigError(
            f"clouds of {len(x)} and {len(y)} particles: one size must be a multiple of the other; take subsets, or "
            "sliced_wasserstein2, which takes any sizes."
        )
    if len(y) > _LARGEST:
        raise ConfigError(f"{len(y)} particles; the exact distance takes at most {_LARGEST}: use sliced_wasserstein2.")
    x = np.repeat(x, len(y) // len(x), axis=0)
    if x.shape[1] == 1:
        return math.sqrt(float(np.mean((np.sort(x, axis=0) - np.sort(y, axis=0)) ** 2)))
    from scipy.optimize import linear_sum_assignment  # slow to load

    # Differences, not |x|^2 + |y|^2 - 2 x.y, which would lose half of the digits of small distances.
    cost = np.zeros((len(x), len(y)))
    for a, b in zip(x.T, y.T, strict=True):
        cost += (a[:, None] - b[None, :]) ** 2
    rows, columns = linear_sum_assignment(cost)
    return math.sqrt(float(np.mean(cost[rows, columns])))


def sliced_wasserstein2(first: Any, second: Any, num_directions: int = 128, *, key: Any) -> SlicedDistance:
    """SW_2 = (E_theta W_2^2 of the projections on theta)^(1/2), theta uniform on the sphere; in the units of the particles.

    Each projection is solved exactly by its quantile functions, for clouds of any sizes; the mean over directions is a
    Monte Carlo estimate. SW_2 <= W_2/sqrt(d). Sources: Bonneel, Rabin, Peyre, Pfister 2015 (J. Math. Imaging Vis. 51);
    Peyre and Cuturi 2019, Section 10.4.

    **Arguments:**

    - `first`, `second`: clouds (m, d) and (n, d), or (m,) and (n,).
    - `num_directions`: the number of directions, at least 2.
    - `key`: a JAX key that draws them.

    **Raises:** `DataError` for clouds of other shapes or with entries that are not finite; `ConfigError` for fewer than
    2 directions.
    """
    x, y = _clouds(first, second)
    if not isinstance(num_directions, int) or num_directions < 2:
        raise ConfigError(f"num_directions = {num_directions!r}; expected an integer of at least 2, such as 128.")
    if x.shape[1] == 1:
        return SlicedDistance(math.sqrt(float(_squared_distances(x, y)[0])), 0.0)
    normal = np.asarray(jr.normal(key, (num_directions, x.shape[1])))
    directions = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    squares = _squared_distances(x @ directions.T, y @ directions.T)
    value = math.sqrt(float(np.mean(squares)))
    error = float(np.std(squares, ddof=1)) / math.sqrt(num_directions)
    return SlicedDistance(value, error / (2 * value) if value > 0 else 0.0)


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """W_2^2 between the columns of x (m, k) and y (n, k): int_0^1 (F^-1(u) - G^-1(u))^2 du, both piecewise constant."""
    m, n = len(x), len(y)
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    if m == n:
        return np.mean((x - y) ** 2, axis=0)
    # The levels i/m and j/n in units of 1/lcm, where they are integers and two that are equal compare equal.
    unit = math.lcm(m, n)
    levels = np.union1d(np.arange(m + 1) * (unit // m), np.arange(n + 1) * (unit // n))
    starts, lengths = levels[:-1], np.diff(levels) / unit
    return lengths @ (x[starts // (unit // m)] - y[starts // (unit // n)]) ** 2


def _clouds(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(cloud, dtype=float) for cloud in (first, second))
    x, y = (cloud[:, None] if cloud.ndim == 1 else cloud for cloud in (x, y))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or 0 in (*x.shape, *y.shape):
        raise DataError(f"clouds of shapes {x.shape} and {y.shape}; expected (m, d) and (n, d) with m, n, d >= 1.")
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise DataError("a cloud holds NaN or infinite coordinates; expected finite particles.")
    return x, y
