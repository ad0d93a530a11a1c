"""Errors of a model against a reference solution."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float64

from ..._core import DataError, in_batches
from .._checks import finite_array
from ._derivatives import scalar


class RelativeError(eqx.Module):
    """The relative error of a model of one output in L2, or in H1 if gradients are given. A function of the model.

    It is sqrt(sum_i q_i |u(x_i) - u*(x_i)|^2 / sum_i q_i |u*(x_i)|^2); in H1 both sums have |grad u - grad u*|^2 and
    |grad u*|^2, too.

    **Arguments:**

    - `points`: the points (n, d); take others than those of the residuals.
    - `values`: the reference u* there (n,).
    - `gradients`: its gradient there (n, d), for the error in H1; or None.
    - `quadrature`: weights q (n,) of the points; None for equal ones.

    **Raises:** `DataError` for numbers that are not finite, shapes that do not fit, weights that are not positive, or a
    reference that is zero.
    """

    points: Float64[Array, "points d"]
    values: Float64[Array, " points"]
    gradients: Float64[Array, "points d"] | None
    quadrature: Float64[Array, " points"]

    def __init__(self, points: Any, values: Any, gradients: Any = None, quadrature: Any = None):
        arrays = {"points": points, "values": values, "gradients": gradients, "quadrature": quadrature}
        found = {
            name: jnp.asarray(finite_array(value, name), dtype=jnp.float64)
            for name, value in arrays.items()
            if value is not None
        }
        shape = found["points"].shape
        expected = {"points": shape, "values": shape[:1], "gradients": shape, "quadrature": shape[:1]}
        for name, array in found.items():
            if len(shape) != 2 or array.shape != expected[name]:
                raise DataError(
                    f"{name} has shape {array.shape}; expected points (n, d), values (n,), gradients (n, d)."
                )
        self.points, self.values, self.gradients = found["points"], found["values"], found.get("gradients")
        self.quadrature = found.get("quadrature", jnp.ones(shape[0]))
        if not bool(jnp.all(self.quadrature > 0)):
            least = float(jnp.min(self.quadrature))
            raise DataError(f"quadrature has the weight {least:.3g}; expected positive weights: leave points out.")
        if not float(jnp.max(jnp.abs(self.values))) > 0:
            raise DataError("values is zero everywhere, so that no relative error is defined.")

    def __call__(self, model: Any) -> Float[Array, ""]:
        """The error of `model`, dimensionless."""
        field = scalar(model)
        off = (in_batches(field, self.points) - self.values) ** 2
        size = self.values**2
        if self.gradients is not None:
            off = off + jnp.sum((in_batches(jax.grad(field), self.points) - self.gradients) ** 2, axis=1)
            size = size + jnp.sum(self.gradients**2, axis=1)
        return jnp.sqrt(jnp.sum(self.quadrature * off) / jnp.sum(self.quadrature * size))
