"""What solvers with a linearisation share: they carry errors along by the linearised flow."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_add_scaled, tree_multiply, tree_norm, tree_scale, tree_subtract
from ..geometry import Linearisation
from ._phi import phi_functions
from ._reduced import ReducedVector, reduce
from ._term import LinearisedTerm, unwrap

# The smallest gap at which psi's divided difference is formed: at a smaller one the difference would lose too many digits.
_LEAST_FOLDS = 1e-5


class AbstractErrorCarryingSolver(diffrax.AbstractAdaptiveSolver):
    """A solver of a `LinearisedTerm` that carries a small error along by its linearisation.

    By default it has order 4 and carries no state from step to step.

    **Attributes:**

    - `errs_upwards`: whether the error that it carries is rather too large than too small (measured: docs/truth.md).
    """

    errs_upwards: ClassVar[bool] = True

    term_structure: ClassVar = LinearisedTerm

    def order(self, terms: Any) -> int:
        """4."""
        return 4

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> None:
        """No state is carried from step to step."""
        return None

    def func(self, terms: Any, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector field."""
        return terms.vf(t0, y0, args)

    @abc.abstractmethod
    def step_with_error(
        self,
        terms: Any,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: Any,
        solver_state: Any,
        made_jump: Any,
        error: PyTree,
        decay: Callable[[PyTree], Float[Array, ""]],
    ) -> tuple[tuple[PyTree, PyTree, dict[str, Any], Any, diffrax.RESULTS], PyTree]:
        """The result of `step`, and a small displacement `error` of the weights, carried on to t1.

        **Arguments:**

        - `error`: the displacement at t0, a tree like the weights.
        - `decay`: returns the factor, in (0, 1], by which the residual falls in a step to the given weights.
        - The others are those of `step`.
        """


class AbstractLinearisedSolver(AbstractErrorCarryingSolver):
    """A solver that linearises the flow once per step, at its start."""

    @abc.abstractmethod
    def linearised_step(
        self, terms: LinearisedTerm, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[tuple[PyTree, PyTree, dict[str, Any], Any, diffrax.RESULTS], Linearisation]:
        """The result of `step`, and the linearisation at (t0, y0) that the step used."""

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[PyTree, PyTree, dict[str, Any], Any, diffrax.RESULTS]:
        """One step from t0 to t1."""
        return self.linearised_step(unwrap(terms), t0, t1, y0, args, solver_state, made_jump)[0]

    def step_with_error(
        self,
        terms: Any,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: Any,
        solver_state: Any,
        made_jump: Any,
        error: PyTree,
        decay: Callable[[PyTree], Float[Array, ""]],
    ) -> tuple[tuple[PyTree, PyTree, dict[str, Any], Any, diffrax.RESULTS], PyTree]:
        """One step, and the displacement `error` carried on by `carry_error`."""
        term = unwrap(terms)
        stepped, linearisation = self.linearised_step(term, t0, t1, y0, args, solver_state, made_jump)
        before, after = (term.split(y)[0] for y in (y0, stepped[0]))
        return stepped, carry_error(term, linearisation, t0, before, t1 - t0, error, decay(after))


def carry_error(
    terms: LinearisedTerm,
    linearisation: Linearisation,
    time: Any,
    weights: PyTree,
    length: Float[Array, ""],
    error: PyTree,
    decay: Float[Array, ""],
) -> PyTree:
    """A small displacement e = `error` of `weights` after flow time h = `length`.

    It obeys e' = F(w + e) - F(w) = W e + D. D = F(w + e) - F(w) - W e is computed at the start of the step, and assumed to fall
    like the residual, by the factor q in the step:

        exp(h W) e + h m psi(h W) D,   psi(z) = (exp(z) - q)/(z - log q).

    The first term is exact in the modes of W, including weight decay. D may make the displacement grow. But a rate |D|/|e|
    above 1/h would be more growth than the error control of the step admits, so it is taken for a contraction that is stiff in
    this step. The factor m = phi_1(-h |D|/|e|) keeps the step from amplifying what the flow damps.

    **Arguments:**

    - `terms`: the term that is integrated.
    - `linearisation`: the linearisation at `weights` and flow time `time`.
    - `time`, `weights`: the start of the step.
    - `length`: the flow time h.
    - `error`: the displacement, a tree like the weights.
    - `decay`: the factor q of the residual, in (0, 1].
    """
    vector = reduce(linearisation, error, jnp.zeros(linearisation.direction.coefficients.size))
    remainder = remainder_at(terms, linearisation, time, weights, 1.0, error, vector.amplitudes)
    assert remainder.rest is not None
    change = tree_add_scaled(remainder.rest, 1.0, linearisation.pull(remainder.coefficients))
    size = tree_norm(error)
    folds = length * tree_norm(change) / jnp.where(size > 0, size, 1.0)
    mean = length * phi_functions(-folds, 1)[1]
    z = -length * linearisation.rates
    rest = jnp.zeros(()) if linearisation.decay is None else -length * linearisation.decay
    at_rest = _damped_mean(rest, decay)
    # The divided difference of psi between the rest and the modes. The gap is at least _LEAST_FOLDS, so that digits are left.
    apart = jnp.minimum(z, -_LEAST_FOLDS)
    quotient = (at_rest - _damped_mean(rest + apart, decay)) / -apart
    kept = jnp.exp(rest)
    moved = kept * phi_functions(z, 1)[1] * vector.amplitudes + mean * quotient * remainder.amplitudes
    coefficients = mean * at_rest * remainder.coefficients - length * (linearisation.left @ moved)
    carried = tree_add_scaled(tree_scale(kept, error), mean * at_rest, remainder.rest)
    return tree_add_scaled(carried, 1.0, linearisation.pull(coefficients))


def _damped_mean(z: Float[Array, "..."], decay: Float[Array, ""]) -> Float[Array, "..."]:
    """psi(z) = int_0^1 exp((1 - s) z) q^s ds for z <= 0."""
    logarithm = jnp.log(decay)
    # The larger exponential is factored out, so that phi_1 is evaluated at a negative number, where it cannot overflow.
    gap = -jnp.abs(z - logarithm)
    return jnp.exp(jnp.maximum(z, logarithm)) * phi_functions(gap, 1)[1]


def remainder_at(
    terms: LinearisedTerm,
    linearisation: Linearisation,
    time: Any,
    weights: PyTree,
    span: Float[Array, ""] | float,
    increment: PyTree,
    amplitudes: Float[Array, " rank"],
) -> ReducedVector:
    """D = F(w_n + x) - F(w_n) - W x with w_n = `weights` and x = `span` times `increment`, given the `amplitudes` of x.

    It is computed as -(J_x - J)^T a_x + J^T (a_n - a_x + L Rt J x). For a model that is linear in its weights the first term is
    exactly zero, and not the rounding of large numbers multiplied by a step that may be 1e12 long. Weight decay adds
    (lambda - D) x, with the rates D of the weights, which is exactly zero if all rates are the same.
    """
    tangent, coefficients = terms.direction(time, tree_add_scaled(weights, span, increment))
    flat = coefficients.reshape(-1)
    rest = tree_subtract(linearisation.pull(flat), tangent.vjp(coefficients))
    if linearisation.decay is not None:
        left = jax.tree.map(lambda rate: linearisation.decay - rate, terms.decay(weights))
        rest = tree_add_scaled(rest, span, tree_multiply(left, increment))
    start = linearisation.direction.coefficients.reshape(-1)
    return reduce(linearisation, rest, start - flat + linearisation.left @ amplitudes)
