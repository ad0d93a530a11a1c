"""The Allen-Cahn equation with a spectral reference."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..._core import DataError, require_float64, require_integer, require_number
from .._collocation import ResidualTerm
from .._residual_problem import ResidualProblem
from ._conditions import Periodic
from ._derivatives import derivative, scalar, second_derivative
from ._errors import RelativeError
from ._quadrature import Box
from ._settings import initial_value_problem

_REACTION = 5.0
_MODES = 512


class AllenCahnResidual(eqx.Module):
    """u_t - diffusivity u_xx - 5 (u - u^3) at a point (x, t)."""

    diffusivity: float = eqx.field(static=True)

    def __call__(self, model: Any, point: Float[Array, " 2"]) -> Float[Array, ""]:
        field = scalar(model)
        value = field(point)
        spread = self.diffusivity * second_derivative(field, point, 0)
        return derivative(field, point, 1) - spread - _REACTION * (value - value**3)


def allen_cahn(
    diffusivity: float = 1e-4,
    points_per_axis: int = 20,
    boundary_weight: float = 1.0,
    initial_weight: float = 1.0,
    rule: str = "gauss_legendre",
    test_times: int = 21,
    *,
    key: Any = None,
) -> ResidualProblem:
    """u_t = diffusivity u_xx + 5 (u - u^3) for -1 < x < 1 and 0 < t < 1, periodic in x, u = x^2 cos(pi x) at t = 0.

    Inputs of the model are (x, t). Terms: "interior", "boundary" (u and u_x at both ends, two residuals) and "initial". The
    test error `relative_l2` is against a solution by 512 Fourier modes and an explicit method of order 8 at tolerance 1e-10, at
    128 equal steps of x and `test_times` equal steps of t. u_x of the first state jumps at x = 1, which limits the reference to
    about six digits.

    **Arguments:**

    - `diffusivity`: > 0, at most 0.1. For 1e-4 layers of width 0.01 form.
    - `points_per_axis`: n; n^2 points inside, n on the boundary and n at t = 0.
    - `boundary_weight`, `initial_weight`: the weights of these terms, >= 0; that of the interior term is 1.
    - `rule`: how points are placed: "gauss_legendre", "midpoint" or "random" (drawn by `key`).
    - `test_times`: times for the test error, at least 2.
    - `key`: a JAX key.

    **Raises:** `DataError` for bad numbers, `ConfigError` for an unknown rule, `PrecisionError` without float64.

    Source: Raissi, Perdikaris, Karniadakis 2019, "Physics-informed neural networks", J. Comput. Phys. 378, Section 3.1.1.
    """
    require_float64((), "allen_cahn")
    diffusivity = require_number(DataError, "diffusivity", diffusivity, above=0.0, most=0.1)
    times = np.linspace(0.0, 1.0, require_integer(DataError, "test_times", test_times, least=2))
    box = Box((-1.0, 0.0), (1.0, 1.0), points_per_axis, rule, key)
    ends = box.on({0: -1.0}, "boundary")
    x, u = allen_cahn_solution(diffusivity, times)
    x, u = x[::4], u[:, ::4]
    test = np.stack(np.meshgrid(x, times), axis=-1).reshape(-1, 2)
    return initial_value_problem(
        "allen_cahn",
        AllenCahnResidual(diffusivity),
        box,
        ResidualTerm("boundary", Periodic(-1.0, 1.0), ends[0], boundary_weight, ends[1]),
        _first_state,
        initial_weight,
        {"relative_l2": RelativeError(test, u.reshape(-1))},
    )


def _first_state(x: np.ndarray) -> np.ndarray:
    return x**2 * np.cos(np.pi * x)


def allen_cahn_solution(diffusivity: float, times: np.ndarray, modes: int = _MODES) -> tuple[np.ndarray, np.ndarray]:
    """x (modes,) and u at the times (k, modes), by Fourier collocation."""
    from scipy.integrate import solve_ivp  # with it SciPy's optimisers are loaded

    x = -1 + 2 * np.arange(modes) / modes
    squares = (np.pi * np.fft.rfftfreq(modes, d=1 / modes)) ** 2

    def rate(time: float, u: np.ndarray) -> np.ndarray:
        spread = np.fft.irfft(-diffusivity * squares * np.fft.rfft(u), n=modes)
        return spread + _REACTION * (u - u**3)

    method = "DOP853" if diffusivity * squares[-1] < 1e3 else "BDF"
    found = solve_ivp(rate, (times[0], times[-1]), _first_state(x), method, times, rtol=1e-10, atol=1e-12)
    return x, found.y.T
