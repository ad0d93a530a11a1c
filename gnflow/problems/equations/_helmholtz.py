"""The Helmholtz equation with a product of sines."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import DataError, require_float64, require_integer, require_number
from .._residual_problem import ResidualProblem
from ._derivatives import laplacian, scalar
from ._quadrature import Box
from ._settings import boundary_value_problem, relative_errors


class HelmholtzResidual(eqx.Module):
    """lap u + k^2 u - q with q = (k^2 - pi^2 (a^2 + b^2)) sin(a pi x) sin(b pi y)."""

    wavenumber: float = eqx.field(static=True)
    frequencies: tuple[int, int] = eqx.field(static=True)

    def __call__(self, model: Any, x: Float[Array, " 2"]) -> Float[Array, ""]:
        field = scalar(model)
        a, b = self.frequencies
        source = (self.wavenumber**2 - jnp.pi**2 * (a**2 + b**2)) * _sines(x, a, b)
        return laplacian(field, x) + self.wavenumber**2 * field(x) - source


def helmholtz(
    wavenumber: float = 1.0,
    frequency_x: int = 1,
    frequency_y: int = 4,
    points_per_axis: int = 20,
    boundary_weight: float = 1.0,
    rule: str = "gauss_legendre",
    test_points_per_axis: int = 40,
    *,
    key: Any = None,
) -> ResidualProblem:
    """lap u + k^2 u = q in the square (-1, 1)^2, u = 0 on its boundary; u* = sin(a pi x) sin(b pi y).

    Terms: "interior" and "boundary". Test errors: `relative_l2` and `relative_h1`, on a Gauss-Legendre grid.

    **Arguments:**

    - `wavenumber`: k, >= 0.
    - `frequency_x`, `frequency_y`: a and b, at least 1.
    - `points_per_axis`: n; n^2 points inside and n on each side.
    - `boundary_weight`: the weight of the boundary term, >= 0; that of the interior term is 1.
    - `rule`: how points are placed: "gauss_legendre", "midpoint" or "random" (drawn by `key`).
    - `test_points_per_axis`: points an axis for the test errors.
    - `key`: a JAX key.

    **Raises:** `DataError` for bad numbers and a k^2 that is the eigenvalue pi^2 (a^2 + b^2), where u is not unique;
    `ConfigError` for an unknown rule, `PrecisionError` without float64.

    Source: Wang, Teng, Perdikaris 2021 (arXiv 2001.04536), Section 4.1.
    """
    require_float64((), "helmholtz")
    wavenumber = require_number(DataError, "wavenumber", wavenumber, least=0.0)
    a = require_integer(DataError, "frequency_x", frequency_x)
    b = require_integer(DataError, "frequency_y", frequency_y)
    if np.isclose(wavenumber**2, np.pi**2 * (a**2 + b**2)):
        raise DataError(f"wavenumber = {wavenumber}: k^2 is pi^2 (a^2 + b^2), so that u is not unique.")
    box = Box((-1.0, -1.0), (1.0, 1.0), points_per_axis, rule, key)
    test, quadrature = Box(box.low, box.high, test_points_per_axis).inside()
    (x, y), values = np.pi * test.T, np.asarray(_sines(test.T, a, b))
    gradients = np.pi * np.stack([a * np.cos(a * x) * np.sin(b * y), b * np.sin(a * x) * np.cos(b * y)], axis=1)
    errors = relative_errors(test, values, gradients, quadrature)
    return boundary_value_problem("helmholtz", HelmholtzResidual(wavenumber, (a, b)), box, boundary_weight, errors)


def _sines(x: Any, a: int, b: int) -> Array:
    return jnp.sin(a * jnp.pi * x[0]) * jnp.sin(b * jnp.pi * x[1])
