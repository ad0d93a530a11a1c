"""The path inside an exponential step: dense output, and integrals along it."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import tree_add_scaled
from ..geometry import Linearisation
from ._reduced import Psi, ReducedVector, apply_functions

# In log(1 + s beta_max) the speed along a step has features of width one, over at most some 30 units.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)


class StepPath(eqx.Module):
    """w(t_n + s) for 0 <= s <= h: w_n + s [phi_1(sW) F + (s/h) phi_2(sW) P_1 + 2 (s/h)^2 phi_3(sW) P_2].

    It solves w' = F + W (w - w_n) + P(s/h) exactly, with the parabola P(x) = x P_1 + x^2 P_2 in place of the remainder.

    **Attributes:** `linearisation` at w_n; `start`: F; `slope`: P_1; `bend`: P_2; `integrands` of the term.
    """

    linearisation: Linearisation
    start: ReducedVector
    slope: ReducedVector
    bend: ReducedVector
    integrands: Callable[[PyTree], dict[str, Array]] | None

    def advance(
        self, weights: PyTree, integrals: dict[str, Array], span: Float[Array, ""], length: Float[Array, ""]
    ) -> tuple[PyTree, dict[str, Array]]:
        """Weights and integrals at s = `span` of a step of length h = `length` from the given ones."""
        ((increment, _),) = apply_functions(self.linearisation, span, [self.parts(span / length)])
        return tree_add_scaled(weights, span, increment), self.integrate(integrals, span, length)

    def parts(self, share: Float[Array, ""] | float) -> list[tuple[Psi, ReducedVector]]:
        """The sum in brackets at s/h = `share`."""
        return [({1: 1.0}, self.start), ({2: share}, self.slope), ({3: 2 * share**2}, self.bend)]

    def _velocity(self, span: Float[Array, ""], length: Float[Array, ""]) -> PyTree:
        share = span / length
        parts = [({0: 1.0}, self.start), ({1: share}, self.slope), ({2: 2 * share**2}, self.bend)]
        return apply_functions(self.linearisation, span, [parts])[0][0]

    def integrate(
        self, integrals: dict[str, Array], span: Float[Array, ""], length: Float[Array, ""]
    ) -> dict[str, Array]:
        """The integrals at s = `span`: Gauss-Legendre quadrature in log(1 + s beta_max), in which every mode is smooth."""
        if self.integrands is None or not integrals:
            return integrals
        integrands = self.integrands
        fastest = jnp.maximum(jnp.max(self.linearisation.rates), jnp.finfo(jnp.float64).tiny)
        upper = jnp.log1p(span * fastest)
        logarithms = upper * jnp.asarray(_NODES + 1) / 2
        measures = upper * jnp.asarray(_WEIGHTS) / 2 * jnp.exp(logarithms) / fastest
        rates = jax.lax.map(lambda u: integrands(self._velocity(jnp.expm1(u) / fastest, length)), logarithms)
        return {name: value + jnp.dot(measures, rates[name]) for name, value in integrals.items()}


class Static(eqx.Module):
    """The parts of a tree that are no arrays, as part of the tree's structure."""

    leaves: tuple[Any, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def __init__(self, tree: PyTree):
        leaves, self.structure = jax.tree.flatten(tree)
        self.leaves = tuple(leaves)

    @property
    def tree(self) -> PyTree:
        """The tree as it was."""
        return jax.tree.unflatten(self.structure, self.leaves)


class ExponentialInterpolation(diffrax.AbstractLocalInterpolation):
    """Diffrax's dense output of one exponential step.

    **Attributes:** `t0`, `t1`: the step; `y0`: the state at its start; `path`, `static`: arrays and the rest of its `StepPath`.
    """

    t0: Any
    t1: Any
    y0: PyTree
    path: PyTree
    static: Static

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> PyTree:
        """The state at flow time `t0`, or the difference of the states at `t1` and `t0`."""
        if t1 is not None:
            late, early = self.evaluate(t1), self.evaluate(t0)
            return jax.tree.map(lambda a, b: a - b, late, early)
        path: StepPath = eqx.combine(self.path, self.static.tree)
        weights, integrals = (self.y0, {}) if path.integrands is None else self.y0
        # The span of an infinitely short step must not divide by its length.
        length = jnp.maximum(self.t1 - self.t0, jnp.finfo(jnp.float64).tiny)
        state = path.advance(weights, integrals, t0 - self.t0, length)
        return state[0] if path.integrands is None else state
