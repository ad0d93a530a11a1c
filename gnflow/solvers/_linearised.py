"""What solvers that take a flow's linearisation share, beside their steps: errors carried along by the linearised flow."""

import abc
from typing import Any, ClassVar

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_add_scaled, tree_norm, tree_subtract
from ..geometry import Linearisation
from ._phi import phi_functions
from ._reduced import ReducedVector, apply_functions, reduce
from ._term import LinearisedTerm, unwrap


class AbstractLinearisedSolver(diffrax.AbstractAdaptiveSolver):
    """A solver of a `LinearisedTerm` that linearises the flow once a step, at its start."""

    term_structure: ClassVar = LinearisedTerm

    @abc.abstractmethod
    def linearised_step(
        self, terms: LinearisedTerm, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[tuple[PyTree, PyTree, dict[str, Any], Any, diffrax.RESULTS], Linearisation]:
        """What `step` returns, and the linearisation at (t0, y0) that the step was taken with."""

    @staticmethod
    def unwrap(terms: Any) -> LinearisedTerm:
        """The term inside Diffrax's wrapper. **Raises:** an `equinox` runtime error where time runs backwards."""
        return unwrap(terms)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[PyTree, PyTree, dict[str, Any], Any, diffrax.RESULTS]:
        """One step from t0 to t1."""
        return self.linearised_step(unwrap(terms), t0, t1, y0, args, solver_state, made_jump)[0]


def carry_error(
    terms: LinearisedTerm,
    linearisation: Linearisation,
    time: Any,
    weights: PyTree,
    length: Float[Array, ""],
    error: PyTree,
    decay: Float[Array, ""],
) -> PyTree:
    """What a small displacement `error` of `weights` has become after flow time `length`.

    One step of the exponential Euler method for e' = F(w + e) - F(w) with the W of the step,

        phi_0(h W) e + m h phi_1(h W) D,   D = F(w + e) - F(w) - W e.

    The first term is exact in the modes that W holds; D is what may make the displacement grow. m <= 1 takes two things
    into account that D, at the start of the step, does not know. D falls with the residual, by the factor `decay` in the
    step: its mean over an exponential decay. And where the rate |D|/|e| is beyond 1/h, which the error control lets no
    growth be, it is taken for a contraction that is stiff for this step: phi_1(-h |D|/|e|), without which the step would
    amplify what the flow damps.

    **Arguments:** `linearisation` at `weights` and flow time `time`; `error`: a tree like the weights;
    `decay`: of the residual.
    """
    vector = reduce(linearisation, error, jnp.zeros(linearisation.direction.coefficients.size))
    point = tree_add_scaled(weights, 1.0, error)
    remainder = remainder_at(terms, linearisation, time, point, vector.amplitudes)
    change = tree_add_scaled(remainder.rest, 1.0, linearisation.pull(remainder.coefficients))
    size = tree_norm(error)
    folds = length * tree_norm(change) / jnp.where(size > 0, size, 1.0)
    mean = phi_functions(-folds, 1)[1] * phi_functions(jnp.log(decay), 1)[1]
    parts = [({0: 1.0}, vector), ({1: length * mean}, remainder)]
    return apply_functions(linearisation, length, [parts])[0][0]


def remainder_at(
    terms: LinearisedTerm, linearisation: Linearisation, time: Any, point: PyTree, amplitudes: Float[Array, " rank"]
) -> ReducedVector:
    """D = F(point) - F(w_n) - W (point - w_n), given the amplitudes of point - w_n.

    Written as -(J_point - J)^T a_point + J^T (a_n - a_point + L Rt J (point - w_n)): the first term is exactly zero for a
    model that is linear in its weights, instead of a difference of large numbers times a step that may be 1e12 long.
    """
    tangent, coefficients = terms.direction(time, point)
    flat = coefficients.reshape(-1)
    rest = tree_subtract(linearisation.pull(flat), tangent.vjp(coefficients))
    start = linearisation.direction.coefficients.reshape(-1)
    return reduce(linearisation, rest, start - flat + linearisation.left @ amplitudes)
