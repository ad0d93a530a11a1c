"""The heat equation on an interval."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..._core import DataError, require_float64, require_number
from .._residual_problem import ResidualProblem
from ._derivatives import derivative, scalar, second_derivative
from ._quadrature import Box
from ._settings import initial_value_problem, relative_errors, vanishing_at_ends


class HeatResidual(eqx.Module):
    """u_t - diffusivity u_xx at a point (x, t)."""

    diffusivity: float = eqx.field(static=True)

    def __call__(self, model: Any, point: Float[Array, " 2"]) -> Float[Array, ""]:
        field = scalar(model)
        return derivative(field, point, 1) - self.diffusivity * second_derivative(field, point, 0)


def heat(
    diffusivity: float = 0.25,
    points_per_axis: int = 20,
    boundary_weight: float = 1.0,
    initial_weight: float = 1.0,
    rule: str = "gauss_legendre",
    test_points_per_axis: int = 40,
    *,
    key: Any = None,
) -> ResidualProblem:
    """u_t = diffusivity u_xx for 0 < x < 1 and 0 < t < 1, u = 0 at x = 0 and 1, u = sin(pi x) at t = 0.

    The solution is exp(-diffusivity pi^2 t) sin(pi x). Inputs of the model are (x, t). Terms: "interior", "boundary" and
    "initial". Test errors: `relative_l2` and `relative_h1` in x and t, on a Gauss-Legendre grid.

    **Arguments:**

    - `diffusivity`: > 0.
    - `points_per_axis`: n; n^2 points inside, 2 n on the boundary and n at t = 0.
    - `boundary_weight`, `initial_weight`: the weights of these terms, >= 0; that of the interior term is 1.
    - `rule`: how points are placed: "gauss_legendre", "midpoint" or "random" (drawn by `key`).
    - `test_points_per_axis`: points an axis for the test errors.
    - `key`: a JAX key.

    **Raises:** `DataError` for bad numbers, `ConfigError` for an unknown rule, `PrecisionError` without float64.

    Source: Mueller, Zeinhofer 2023 (arXiv 2302.13163), Section 4.2.
    """
    require_float64((), "heat")
    diffusivity = require_number(DataError, "diffusivity", diffusivity, above=0.0)
    box = Box((0.0, 0.0), (1.0, 1.0), points_per_axis, rule, key)
    test, quadrature = Box(box.low, box.high, test_points_per_axis).inside()
    rate = diffusivity * np.pi**2
    decay, sine, cosine = np.exp(-rate * test[:, 1]), np.sin(np.pi * test[:, 0]), np.cos(np.pi * test[:, 0])
    values = decay * sine
    gradients = np.stack([np.pi * decay * cosine, -rate * values], axis=1)
    return initial_value_problem(
        "heat",
        HeatResidual(diffusivity),
        box,
        vanishing_at_ends(box, boundary_weight),
        lambda x: np.sin(np.pi * x),
        initial_weight,
        relative_errors(test, values, gradients, quadrature),
    )
