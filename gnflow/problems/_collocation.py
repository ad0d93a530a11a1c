"""Residuals at points, and what a residual problem has in the place of inputs."""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, PyTree

from .._core import (
    DataError,
    ModelError,
    PrecisionError,
    by_shape,
    is_traced,
    name_of,
    on_one_line,
    require_float64,
    require_number,
    shown,
)
from ..models import has_kinks
from ._checks import finite_array

Residual = Callable[[Any, Any], Array]


class ResidualTerm(eqx.Module):
    """One part of a residual problem, with the loss weight/(2 sum_i q_i) sum_i q_i |residual(model, x_i)|^2.

    **Arguments:**

    - `name`: what the term is called in data sets and tables, such as "interior".
    - `residual`: a JAX function of the model and one point that gives the residuals there, (k,) or a number. Derivatives of the
      model are JAX's own: `jax.grad`, `jax.hessian`, `jax.jvp` of `model` in the point. An Equinox module that is called like
      this can be saved and may hold arrays; they are not trained.
    - `points`: the points (n, d), or (n,) for numbers; or a tree of such arrays of equal n, of which the residual gets one row.
    - `weight`: the weight of the term in the loss, >= 0.
    - `quadrature`: weights q (n,) > 0 of the points. None gives all points the same. Only their ratios matter: the loss holds a
      mean over the points.

    **Attributes:** the arguments, with float64 arrays.

    **Raises:** `DataError` for bad values, `PrecisionError` without float64.
    """

    name: str = eqx.field(static=True)
    residual: Residual
    points: PyTree[Float64[Array, "points ..."]]
    weight: Float64[Array, ""]
    quadrature: Float64[Array, " points"]

    def __init__(self, name: Any, residual: Any, points: Any, weight: Any = 1.0, quadrature: Any = None):
        require_float64((), "ResidualTerm")
        if not isinstance(name, str) or not name.isidentifier():
            raise DataError(
                f"name = {shown(name)}; expected a word such as 'interior', for a variable of the data set."
            )
        if isinstance(residual, type) or not callable(residual):
            raise DataError(
                f"term {name!r}: residual = {shown(residual)}; expected a function residual(model, point) -> (k,)."
            )
        weight = weight if is_traced(weight) else require_number(DataError, f"term {name!r}: weight", weight, least=0.0)
        self.name, self.residual = name, cast(Residual, residual)
        self.points = jax.tree.map(
            lambda leaf: _points(leaf, f"points of term {name!r}"), points, is_leaf=_is_array_like
        )
        counts = sorted({len(leaf) for leaf in jax.tree.leaves(self.points)})
        if len(counts) != 1:
            raise DataError(
                f"points of term {name!r} have {counts} rows; expected arrays with the same number of rows, at least one array."
            )
        self.weight = jnp.asarray(weight, dtype=jnp.float64)
        self.quadrature = jnp.ones(counts[0]) if quadrature is None else _quadrature(quadrature, counts[0], name)

    @property
    def num_points(self) -> int:
        """The number n of points."""
        return self.quadrature.shape[0]

    @property
    def point(self) -> PyTree:
        """Shape and dtype of one point."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.points)

    @property
    def scales(self) -> Float[Array, " points"]:
        """sqrt(weight q_i / sum q) (n,): residuals times these have the term's loss as half their sum of squares."""
        return jnp.sqrt(self.weight * self.quadrature / jnp.sum(self.quadrature))

    def values(self, model: Any) -> Float[Array, "points residuals"]:
        """The residuals (n, k) of a model."""
        return jax.vmap(lambda point: jnp.atleast_1d(self.residual(model, point)))(self.points)

    def scaled(self, model: Any) -> Float[Array, " rows"]:
        """The residuals times `scales`, as one vector (n k,)."""
        return (self.scales[:, None] * self.values(model)).reshape(-1)

    def loss(self, model: Any) -> Float[Array, ""]:
        """weight/(2 sum_i q_i) sum_i q_i |r(x_i)|^2. Of other points than those that are trained on it is a test error."""
        return jnp.sum(self.scaled(model) ** 2) / 2

    def num_residuals(self, model: Any) -> int:
        """The number k of residuals at a point.

        **Raises:** `ModelError` if the residual cannot be computed with this model, or is no array (k,) of real numbers;
        `PrecisionError` if it is not float64.
        """
        what = f"the residual of term {self.name!r}"
        try:
            found = _residual_shape((model, self.residual), self.point)
        except Exception as error:
            points = jax.tree.map(lambda leaf: leaf.shape, self.point)
            raise ModelError(
                f"{what} cannot be computed with {name_of(type(model))} at a point of shape {points}: "
                f"{type(error).__name__}: {on_one_line(error, 300)} It is called as residual(model, point)."
            ) from error
        shape = getattr(found, "shape", None)
        if shape is None or len(shape) > 1 or 0 in shape or not jnp.issubdtype(found.dtype, jnp.floating):
            given = f"an array {shape} of {found.dtype}" if shape is not None else f"a {type(found).__name__}"
            raise ModelError(
                f"{what} gives {given} at a point; expected real numbers, (k,) or one. A model with one output gives (1,): "
                "take model(point)[0] before jax.grad and jax.hessian."
            )
        if found.dtype != jnp.float64:
            raise PrecisionError(f"{what} is {found.dtype}, but float64 is needed; remove the conversion in it.")
        return shape[0] if shape else 1


class Collocation(eqx.Module):
    """The residuals of all terms at their points: what a residual problem has in the place of inputs.

    **Attributes:** `terms`: the terms.
    """

    terms: tuple[ResidualTerm, ...]

    def outputs(self, model: Any) -> Float[Array, "1 rows"]:
        """All scaled residuals in one row (1, R), term after term: L is half their sum of squares."""
        return jnp.concatenate([term.scaled(model) for term in self.terms])[None]

    def has_kinks(self, model: Any) -> bool | None:
        """Whether the Jacobian of the residuals may jump; None if that is not known.

        True for a model with kinks. Derivatives of a smooth model may have kinks that the model has not, so False takes
        residuals all of whose operations are analytic.
        """
        if has_kinks(model):
            return True
        analytic = all(has_kinks(_Applied(model, term.residual), term.point) is False for term in self.terms)
        return False if analytic else None


class _Applied(eqx.Module):
    """A residual of a model as a function of the point."""

    model: Any
    residual: Residual

    def __call__(self, point: Any) -> Array:
        return self.residual(self.model, point)


@by_shape
def _residual_shape(parts: Any, point: Any) -> Any:
    model, residual = parts
    return eqx.filter_eval_shape(lambda model, residual, point: residual(model, point), model, residual, point)


def _is_array_like(value: Any) -> bool:
    """Lists of numbers are arrays, as everywhere; tuples and dictionaries hold several."""
    return not isinstance(value, tuple | dict | eqx.Module)


def _points(value: Any, what: str) -> Float64[Array, "points ..."]:
    array = finite_array(value, what)
    if array.ndim == 0 or 0 in array.shape:
        raise DataError(f"{what} have shape {array.shape}; expected (n, d) or (n,) with at least one point.")
    return jnp.asarray(array, dtype=jnp.float64)


def _quadrature(value: Any, count: int, name: str) -> Float64[Array, " points"]:
    weights = finite_array(value, f"quadrature of term {name!r}")
    if weights.shape != (count,):
        raise DataError(
            f"quadrature of term {name!r} has shape {weights.shape}; expected ({count},), one for each point."
        )
    if not is_traced(weights) and not np.all(np.asarray(weights) > 0):
        least = float(np.min(np.asarray(weights)))
        raise DataError(
            f"quadrature of term {name!r} has the weight {least:.3g}; expected positive weights: leave points out."
        )
    return jnp.asarray(weights, dtype=jnp.float64)
