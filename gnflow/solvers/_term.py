"""A flow as a Diffrax term that also knows its linearisation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_multiply, tree_scale, tree_subtract
from ..geometry import AbstractTangent, Decomposition, Linearisation, System


class LinearisedTerm(diffrax.AbstractTerm):
    """w' = -J^T a - D w for `diffrax.diffeqsolve`, with the linearisation that the exponential and implicit solvers need.

    The state y is the tree of trained weights, `system.weights(model)`. With `integrands` it is the pair (weights, integrals),
    where `integrands(w')` gives the rates of change of the integrals.

    **Arguments:**

    - `flow`: a flow with a linearisation (`AbstractFlow.linearised`). For a wrapped flow this is its `dynamics`.
    - `system`: from `flow.system(problem, model)`.
    - `integrands`: a function of the velocity that returns a dictionary of scalars, or None.
    - `runs_forwards`: whether flow time is known to run forwards. If not, a check is compiled in, which calls back to Python,
      and a program with callbacks cannot be stored.
    """

    flow: Any
    system: System
    integrands: Callable[[PyTree], dict[str, Array]] | None = None
    runs_forwards: bool = eqx.field(static=True, default=False)

    def vf(self, t: Any, y: PyTree, args: Any) -> PyTree:
        """w', and the rates of change of the integrals if there are any."""
        velocity = self.velocity(t, self.split(y)[0])
        return self.join(velocity, {} if self.integrands is None else self.integrands(velocity))

    def contr(self, t0: Any, t1: Any, **kwargs: Any) -> Any:
        """t1 - t0."""
        return t1 - t0

    def prod(self, vf: PyTree, control: Any) -> PyTree:
        """The vector field times a time difference."""
        return jax.tree.map(lambda leaf: control * leaf, vf)

    def velocity(self, t: Any, weights: PyTree) -> PyTree:
        """w' at flow time `t`."""
        tangent, coefficients = self.direction(t, weights)
        velocity, rates = tree_scale(-1.0, tangent.vjp(coefficients)), self.decay(weights)
        return velocity if rates is None else tree_subtract(velocity, tree_multiply(rates, weights))

    def direction(self, t: Any, weights: PyTree) -> tuple[AbstractTangent, Float[Array, "samples outputs"]]:
        """The tangent at `weights` and the coefficients a (N, C) at flow time `t`."""
        tangent = self.flow.tangent(weights, self.system)
        time = jnp.asarray(t, dtype=jnp.float64)
        return tangent, self.flow.linearised.direction(time, tangent, self.system).coefficients

    def decay(self, weights: PyTree) -> PyTree | None:
        """The rates D of weight decay, a tree like `weights`; None for a flow without decay."""
        return self.flow.decay(weights, self.system)

    def linearise(self, t: Any, weights: PyTree, decomposition: Decomposition) -> Linearisation:
        """The direction and W at `weights` and flow time `t`.

        If the rates D differ, W contains the smallest one. A weight that W damped too much would stand still in a long step,
        and the error estimate would not see that (docs/theory.md, With weight decay).
        """
        time = jnp.asarray(t, dtype=jnp.float64)
        tangent = self.flow.tangent(weights, self.system)
        found = self.flow.linearised.linearisation(time, tangent, self.system, decomposition)
        rates = self.decay(weights)
        if rates is None:
            return found
        smallest = jnp.min(jnp.stack([jnp.min(jnp.asarray(leaf)) for leaf in jax.tree.leaves(rates)]))
        return dataclasses.replace(found, decay=smallest)

    def split(self, y: PyTree) -> tuple[PyTree, dict[str, Array]]:
        """(weights, integrals) of a state, or of anything of its structure."""
        return (y, {}) if self.integrands is None else y

    def join(self, weights: PyTree, integrals: dict[str, Array]) -> PyTree:
        """The inverse of `split`."""
        return weights if self.integrands is None else (weights, integrals)


class PairTerm(diffrax.ODETerm):
    """A Diffrax ODE term with the pair (weights, integrals) as its state. Nothing depends on the integrals.

    **Arguments:**

    - `vector_field`: a function (t, (weights, integrals), args) -> (w', rates of change of the integrals).
    """

    def split(self, y: PyTree) -> tuple[PyTree, Any]:
        """(weights, integrals) of a state, or of anything of its structure."""
        return y

    def join(self, weights: PyTree, integrals: Any) -> PyTree:
        """The inverse of `split`."""
        return weights, integrals


def split_state(terms: Any, y: PyTree) -> tuple[PyTree, Any]:
    """(weights, integrals) of a state of any term, or of anything of its structure. Other terms have no integrals."""
    term = _inside(terms)
    return term.split(y) if isinstance(term, LinearisedTerm | PairTerm) else (y, {})


def join_state(terms: Any, weights: PyTree, integrals: Any) -> PyTree:
    """The inverse of `split_state`."""
    term = _inside(terms)
    return term.join(weights, integrals) if isinstance(term, LinearisedTerm | PairTerm) else weights


def unwrap(terms: Any) -> LinearisedTerm:
    """The term inside the wrapper by which Diffrax reverses time. gnflow's flows run only forwards.

    **Raises:** an `equinox` runtime error in an integration from a later to an earlier time.
    """
    term = _inside(terms)
    if term is terms or term.runs_forwards:
        return term
    return eqx.error_if(
        term, jnp.asarray(terms.direction) < 0, "a linearised flow is integrated forwards only; let t0 < t1."
    )


def _inside(terms: Any) -> Any:
    """The term without the wrapper by which Diffrax reverses time."""
    return getattr(terms, "term", terms)
