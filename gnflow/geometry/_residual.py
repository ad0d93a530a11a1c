"""The tangent of residuals, by automatic differentiation point by point in bounded memory."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..problems import Collocation
from ._generic import GenericTangent, width_within_memory
from ._row_products import row_products
from ._tangent import AbstractTangent


class ResidualTangent(AbstractTangent):
    """The tangent of the scaled residuals of a residual problem: R rows, in one sample with R outputs.

    **Attributes:**

    - `outputs`: the scaled residuals (1, R).
    - `weights`, `structure`: the model split into trained arrays and the rest.
    - `collocation`: terms and points.
    """

    outputs: Float[Array, "1 rows"]
    weights: PyTree
    structure: PyTree
    collocation: Collocation

    def __init__(self, weights: PyTree, structure: PyTree, collocation: Collocation):
        self.weights = weights
        self.structure = structure
        self.collocation = collocation
        self.outputs = self._rows(weights)

    def _rows(self, weights: PyTree) -> Float[Array, "1 rows"]:
        return self.collocation.outputs(eqx.combine(weights, self.structure))

    def jvp(self, displacement: PyTree) -> Float[Array, "1 rows"]:
        """J r by forward mode."""
        return jax.jvp(self._rows, (self.weights,), (displacement,))[1]

    def vjp(self, coefficients: Float[Array, "1 rows"]) -> PyTree:
        """J^T a by reverse mode."""
        return jax.vjp(self._rows, self.weights)[1](coefficients)[0]

    def cross_gram(self, other: AbstractTangent) -> Float[Array, "rows columns"]:
        """J J'^T, a block for each pair of terms, each from per-point Jacobian rows."""
        assert isinstance(other, ResidualTangent)
        if other is self and self.jacobian_width is not None:
            rows = self.jacobian()
            return row_products(rows, rows)
        left = self._parts()
        if other is not self:
            return jnp.block([[one.cross_gram(its) for its in other._parts()] for one in left])
        lower = [[one.cross_gram(its) for its in left[: index + 1]] for index, one in enumerate(left)]
        count = len(left)
        return jnp.block([[lower[i][j] if j <= i else lower[j][i].T for j in range(count)] for i in range(count)])

    @property
    def jacobian_width(self) -> int | None:
        """P, if J is not larger than 1 GiB."""
        return width_within_memory(self)

    def jacobian(self) -> Float[Array, "rows weights"]:
        """J (R, P), term after term."""
        return jnp.concatenate([part.jacobian() for part in self._parts()])

    def _parts(self) -> tuple[GenericTangent, ...]:
        """The tangent of each term, whose "inputs" are its points and their scales."""
        return tuple(
            GenericTangent(
                _Scaled(self.weights, jax.tree.map(lambda _: None, term.residual)),
                _Scaled(self.structure, term.residual),
                (term.points, term.scales),
            )
            for term in self.collocation.terms
        )


class _Scaled(eqx.Module):
    """A residual of a model as a function of a point and its scale."""

    model: Any
    residual: Any

    def __call__(self, at: tuple[Any, Array]) -> Array:
        point, scale = at
        return scale * jnp.atleast_1d(self.residual(self.model, point))
