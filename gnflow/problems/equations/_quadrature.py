"""Points and quadrature weights in a box, on its faces, and on slices of it."""

import itertools
from typing import Any

import jax
import numpy as np

from ..._core import DataError, look_up, require_integer, require_memory, shown, stream
from .._checks import finite_array

_RULES = ("gauss_legendre", "midpoint", "random")


class Box:
    """The box [low_1, high_1] x ... x [low_d, high_d] with a rule of n points an axis.

    **Arguments:**

    - `low`, `high`: the corners (d,).
    - `points_per_axis`: n.
    - `rule`: "gauss_legendre" (exact for polynomials up to degree 2n - 1 in each coordinate), "midpoint", or "random" (uniform
      points, as many as the others have).
    - `key`: a JAX key, for "random".

    **Raises:** `DataError` for bad values; `ConfigError` for an unknown rule.
    """

    def __init__(self, low: Any, high: Any, points_per_axis: int, rule: str = "gauss_legendre", key: Any = None):
        self.low = np.asarray(finite_array(low, "low"), dtype=float)
        self.high = np.asarray(finite_array(high, "high"), dtype=float)
        if self.low.ndim != 1 or self.low.shape != self.high.shape or not np.all(self.low < self.high):
            raise DataError(
                f"low = {shown(low)}, high = {shown(high)}; expected two corners (d,), low below high in each coordinate."
            )
        self.count = require_integer(DataError, "points_per_axis", points_per_axis)
        look_up(rule, dict.fromkeys(_RULES), "rule")
        if rule == "random" and key is None:
            raise DataError('rule = "random" draws points; give a key.')
        self.rule, self.key = rule, key
        points = self.count ** len(self.low)
        require_memory(DataError, f"{points} points", 8.0 * points * len(self.low), "Take fewer points_per_axis.")

    def inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (n^d, d) and weights (n^d,)."""
        return self.on({}, "inside")

    def on(self, fixed: dict[int, float], name: str) -> tuple[np.ndarray, np.ndarray]:
        """Points and weights where some coordinates are fixed: n^(d - number of these).

        **Arguments:**

        - `fixed`: values by coordinate.
        - `name`: of the stream of random points.
        """
        free = [axis for axis in range(len(self.low)) if axis not in fixed]
        points = np.empty((self.count ** len(free), len(self.low)))
        for axis, value in fixed.items():
            points[:, axis] = value
        lengths = self.high - self.low
        if self.rule == "random":
            drawn = jax.random.uniform(stream(self.key, f"points {name}"), (len(points), len(free)))
            points[:, free] = self.low[free] + lengths[free] * np.asarray(drawn)
            return points, np.full(len(points), np.prod(lengths[free]) / len(points))
        nodes, weights = _rule(self.rule, self.count)
        for axis, column in zip(free, np.meshgrid(*[nodes] * len(free), indexing="ij"), strict=True):
            points[:, axis] = self.low[axis] + lengths[axis] * column.reshape(-1)
        products = np.array([np.prod(one) for one in itertools.product(weights, repeat=len(free))])
        return points, products * np.prod(lengths[free])

    def faces(self, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Points and weights on the two faces of each of the given axes."""
        found = [
            self.on({axis: float(side[axis])}, f"face {axis} {end}")
            for axis in axes
            for end, side in (("low", self.low), ("high", self.high))
        ]
        points, weights = zip(*found, strict=True)
        return np.concatenate(points), np.concatenate(weights)


def _rule(rule: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]."""
    if rule == "midpoint":
        return (np.arange(count) + 0.5) / count, np.full(count, 1 / count)
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2
