"""Poisson's equation with a product of sines."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import DataError, require_float64, require_integer
from .._residual_problem import ResidualProblem
from ._derivatives import laplacian, scalar
from ._quadrature import Box
from ._settings import boundary_value_problem, relative_errors


class PoissonResidual(eqx.Module):
    """lap u + d pi^2 prod_i sin(pi x_i)."""

    def __call__(self, model: Any, x: Float[Array, " d"]) -> Float[Array, ""]:
        return laplacian(scalar(model), x) + x.shape[0] * jnp.pi**2 * jnp.prod(jnp.sin(jnp.pi * x))


def poisson(
    dimension: int = 2,
    points_per_axis: int = 20,
    boundary_weight: float = 1.0,
    rule: str = "gauss_legendre",
    test_points_per_axis: int = 40,
    *,
    key: Any = None,
) -> ResidualProblem:
    """-lap u = d pi^2 prod_i sin(pi x_i) in the unit cube, u = 0 on its boundary; u* = prod_i sin(pi x_i).

    Terms: "interior" and "boundary". Test errors: `relative_l2` and `relative_h1`, on a Gauss-Legendre grid.

    **Arguments:**

    - `dimension`: d, at least 1.
    - `points_per_axis`: n; n^d points inside and n^(d - 1) on each face.
    - `boundary_weight`: the weight of the boundary term, >= 0; that of the interior term is 1.
    - `rule`: how points are placed: "gauss_legendre", "midpoint" or "random" (drawn by `key`).
    - `test_points_per_axis`: points an axis for the test errors.
    - `key`: a JAX key.

    **Raises:** `DataError` for bad numbers, `ConfigError` for an unknown rule, `PrecisionError` without float64.

    Source: Mueller, Zeinhofer 2023 (arXiv 2302.13163), Section 4.1, where d = 2, with points on a grid.
    """
    require_float64((), "poisson")
    dimension = require_integer(DataError, "dimension", dimension)
    box = Box(np.zeros(dimension), np.ones(dimension), points_per_axis, rule, key)
    test, quadrature = Box(box.low, box.high, test_points_per_axis).inside()
    values = np.prod(np.sin(np.pi * test), axis=1)
    # Each column of the gradient has a cosine in the place of one sine.
    sines, cosines = np.sin(np.pi * test)[:, None], np.cos(np.pi * test)[:, None]
    gradients = np.pi * np.prod(np.where(np.eye(dimension, dtype=bool), cosines, sines), axis=2)
    errors = relative_errors(test, values, gradients, quadrature)
    return boundary_value_problem("poisson", PoissonResidual(), box, boundary_weight, errors)
