"""Burgers' equation with the Cole-Hopf solution."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..._core import DataError, require_float64, require_number
from .._residual_problem import ResidualProblem
from ._derivatives import derivative, scalar, second_derivative
from ._errors import RelativeError
from ._quadrature import Box
from ._settings import initial_value_problem, vanishing_at_ends

# Of the trapezoidal rule, which converges exponentially for integrands that decay at both ends.
_REACH, _NODES = 12.0, 1201


class BurgersResidual(eqx.Module):
    """u_t + u u_x - viscosity u_xx at a point (x, t)."""

    viscosity: float = eqx.field(static=True)

    def __call__(self, model: Any, point: Float[Array, " 2"]) -> Float[Array, ""]:
        field = scalar(model)
        transported = field(point) * derivative(field, point, 0)
        return derivative(field, point, 1) + transported - self.viscosity * second_derivative(field, point, 0)


def burgers(
    viscosity: float = 0.1,
    points_per_axis: int = 20,
    boundary_weight: float = 1.0,
    initial_weight: float = 1.0,
    rule: str = "gauss_legendre",
    test_points_per_axis: int = 40,
    *,
    key: Any = None,
) -> ResidualProblem:
    """u_t + u u_x = viscosity u_xx for -1 < x < 1 and 0 < t < 1, u = 0 at x = -1 and 1, u = -sin(pi x) at t = 0.

    Inputs of the model are (x, t). Terms: "interior", "boundary" and "initial". The test error `relative_l2` is against the
    Cole-Hopf solution, whose integrals the trapezoidal rule gives to rounding, on a Gauss-Legendre grid.

    **Arguments:**

    - `viscosity`: at least 0.003. For 0.01/pi a front of width 0.01 forms at x = 0.
    - `points_per_axis`: n; n^2 points inside, 2 n on the boundary and n at t = 0.
    - `boundary_weight`, `initial_weight`: the weights of these terms, >= 0; that of the interior term is 1.
    - `rule`: how points are placed: "gauss_legendre", "midpoint" or "random" (drawn by `key`).
    - `test_points_per_axis`: points an axis for the test errors.
    - `key`: a JAX key.

    **Raises:** `DataError` for bad numbers, `ConfigError` for an unknown rule, `PrecisionError` without float64.

    Sources: Basdevant et al. 1986, "Spectral and finite difference solutions of the Burgers equation", Computers and Fluids
    14, for the solution; Raissi, Perdikaris, Karniadakis 2019 for the problem.
    """
    require_float64((), "burgers")
    viscosity = require_number(DataError, "viscosity", viscosity, least=0.003)
    box = Box((-1.0, 0.0), (1.0, 1.0), points_per_axis, rule, key)
    test, quadrature = Box(box.low, box.high, test_points_per_axis).inside()
    return initial_value_problem(
        "burgers",
        BurgersResidual(viscosity),
        box,
        vanishing_at_ends(box, boundary_weight),
        lambda x: -np.sin(np.pi * x),
        initial_weight,
        {"relative_l2": RelativeError(test, burgers_solution(test, viscosity), quadrature=quadrature)},
    )


def burgers_solution(points: np.ndarray, viscosity: float, nodes: int = _NODES) -> np.ndarray:
    """u at the points (n, 2) = (x, t), (n,).

    With z = sqrt(4 viscosity t) s it is -int sin(pi (x - z)) F(x - z) exp(-s^2) ds / int F(x - z) exp(-s^2) ds, where
    F(y) = exp(-cos(pi y)/(2 pi viscosity)) (Basdevant et al. 1986).
    """
    s = np.linspace(-_REACH, _REACH, nodes)
    y = points[:, :1] - np.sqrt(4 * viscosity * points[:, 1:]) * s
    exponent = -np.cos(np.pi * y) / (2 * np.pi * viscosity) - s**2
    factor = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return -np.sum(np.sin(np.pi * y) * factor, axis=1) / np.sum(factor, axis=1)
