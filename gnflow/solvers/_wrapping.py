"""Solvers that take the steps of another one and add information about them."""

from typing import Any

import diffrax
import equinox as eqx
from jaxtyping import PyTree


class AbstractWrappingSolver(diffrax.AbstractAdaptiveSolver):
    """A solver with the terms, the orders and the dense output of another one.

    **Attributes:**

    - `inner`: the other solver.
    """

    inner: eqx.AbstractVar[Any]

    @property
    def term_structure(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The term structure of the inner solver."""
        return self.inner.term_structure

    @property
    def interpolation_cls(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The interpolation of the inner solver."""
        return self.inner.interpolation_cls

    def order(self, terms: Any) -> Any:
        """The order of the inner solver."""
        return self.inner.order(terms)

    def error_order(self, terms: Any) -> Any:
        """The order of the error estimate of the inner solver."""
        return self.inner.error_order(terms)

    def func(self, terms: Any, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector field."""
        return self.inner.func(terms, t0, y0, args)
