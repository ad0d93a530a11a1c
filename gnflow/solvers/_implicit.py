"""An implicit Runge-Kutta solver with linear systems of size NC: Kvaerno's method with the low-rank linearisation."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import tree_add_scaled, tree_multiply, tree_rms, tree_scale, tree_subtract
from ..geometry import Decomposition, Linearisation
from ._linearised import AbstractLinearisedSolver
from ._term import LinearisedTerm, unwrap

_MAX_ITERATIONS = 12
# Relative to D w: where a flow with weight decay rests, its velocity is the difference of D w and a vector of the same size.
# Only rounding is left of it, and no iteration can be more accurate than that.
_ROUNDING = 1e-12
_TINY = 1e-30


class LowRankKvaerno5(AbstractLinearisedSolver):
    """The method Kvaerno5 of Diffrax (order 5, L-stable, embedded order 4) for flows, in O(N M + NC^2) memory.

    Its stages are solved by a chord method with I - gamma h W for the Jacobian, which is inverted in NC dimensions (Woodbury).
    Rounding limits a step h across a mode of rate beta that has yet to decay: its relative error is about 2e-16 h beta.
    Source: Kvaerno, "Singly diagonally implicit Runge-Kutta methods with an explicit first stage", BIT 2004.

    **Arguments:**

    - `decomposition`: how the modes of the Gram matrix are found.
    - `iteration_rtol`: the error of a stage's velocity at which its iteration ends, relative to that velocity.
    """

    interpolation_cls: ClassVar = diffrax.Kvaerno5.interpolation_cls

    decomposition: Decomposition = Decomposition()
    iteration_rtol: float = 1e-6

    def _inner(
        self, terms: LinearisedTerm, linearisation: Linearisation | None = None, atol: Any = _TINY
    ) -> diffrax.Kvaerno5:
        root_finder = LowRankChord(terms=terms, linearisation=linearisation, rtol=self.iteration_rtol, atol=atol)
        return diffrax.Kvaerno5(root_finder=root_finder, root_find_max_steps=_MAX_ITERATIONS)

    def order(self, terms: Any) -> int:
        """5."""
        return 5

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> Any:
        """The vector field at the start, which each step passes to the next one."""
        return self._inner(unwrap(terms)).init(terms, t0, t1, y0, args)

    def linearised_step(
        self, terms: LinearisedTerm, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[tuple[PyTree, PyTree, dict[str, Any], Any, diffrax.RESULTS], Linearisation]:
        """One step from t0 to t1, and the linearisation that it used."""
        weights = terms.split(y0)[0]
        linearisation, rates = terms.linearise(t0, weights, self.decomposition), terms.decay(weights)
        atol = _TINY if rates is None else _TINY + _ROUNDING * tree_rms(tree_multiply(rates, weights))
        solver = self._inner(terms, linearisation, atol)
        return solver.step(terms, t0, t1, y0, args, solver_state, made_jump), linearisation


class _ChordState(eqx.Module):
    """The state of a chord iteration.

    **Attributes:**

    - `linearisation`: W, fixed for the step.
    - `gain`: gamma h, fixed for the step.
    - `correction`, `previous`: the sizes of the last two corrections, relative to the tolerance.
    - `iterations`: the number of iterations.
    """

    linearisation: Linearisation
    gain: Float[Array, ""]
    correction: Float[Array, ""]
    previous: Float[Array, ""]
    iterations: Int[Array, ""]


class LowRankChord(optx.AbstractRootFinder):
    """The chord iteration (Newton's with a fixed inverse) for the implicit stages of a Diffrax solver.

    The inverse is Woodbury's formula for W = -J^T L diag(beta) Rt J:

        (I - c W)^(-1) x = x - c J^T L diag(1/(1 + c beta)) Rt J x,   c = gamma h.

    With weight decay (I - c W)^(-1) is (1 + c lambda)^(-1) times the same with c/(1 + c lambda) in the place of c.

    **Arguments:**

    - `terms`: the term that is integrated.
    - `linearisation`: W, at the start of the step.
    - `rtol`: the tolerance relative to the velocity.
    - `atol`: the absolute tolerance, rms.
    - `norm`: not used; Diffrax expects the field.
    """

    terms: LinearisedTerm
    linearisation: Linearisation | None
    rtol: float
    atol: Any = _TINY
    norm: Any = eqx.field(static=True, default=optx.rms_norm)

    def init(
        self, fn: Any, y: PyTree, args: Any, options: dict[str, Any], f_struct: Any, aux_struct: Any, tags: frozenset
    ) -> _ChordState:
        """The state before the first implicit stage. Diffrax passes the state on to the later stages."""
        if "init_state" in options:
            return options["init_state"]
        assert self.linearisation is not None
        _, diagonal, _, _, _, _, _, control = args
        infinite = jnp.asarray(jnp.inf)
        return _ChordState(self.linearisation, jnp.asarray(diagonal * control), infinite, infinite, jnp.asarray(0))

    def step(
        self, fn: Any, y: PyTree, args: Any, options: dict[str, Any], state: _ChordState, tags: frozenset
    ) -> tuple[PyTree, _ChordState, Any]:
        """y - (I - c W)^(-1) fn(y)."""
        residual, aux = fn(y, args)
        weights, integrals = self.terms.split(residual)
        linearisation, gain = state.linearisation, state.gain
        if linearisation.decay is not None:
            # I - c W = (1 + c lambda) (I - c/(1 + c lambda) W'), where W' is W without the decay.
            weights = tree_scale(1 / (1 + gain * linearisation.decay), weights)
            gain = gain / (1 + gain * linearisation.decay)
        amplitudes = linearisation.right @ linearisation.push(weights) / (1 + gain * linearisation.rates)
        solved = tree_add_scaled(weights, -gain, linearisation.pull(linearisation.left @ amplitudes))
        new = tree_subtract(y, self.terms.join(solved, integrals))
        # Integrals follow from the weights, so they do not decide when the iteration ends.
        size = tree_rms(solved) / (self.rtol * tree_rms(self.terms.split(new)[0]) + self.atol)
        return new, _ChordState(linearisation, state.gain, size, state.correction, state.iterations + 1), aux

    def terminate(
        self, fn: Any, y: PyTree, args: Any, options: dict[str, Any], state: _ChordState, tags: frozenset
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:
        """Stop if the corrections, continued as a geometric series, add less than the tolerance, or if they diverge."""
        rate = state.correction / state.previous
        twice = state.iterations >= 2
        converged = (state.correction < 1e-3) | (twice & (rate < 1) & (state.correction * rate < (1 - rate)))
        diverged = ~jnp.isfinite(state.correction) & (state.iterations >= 1) | (twice & (rate > 2) & ~converged)
        result = optx.RESULTS.where(diverged, optx.RESULTS.nonlinear_divergence, optx.RESULTS.successful)
        return converged | diverged, result

    def postprocess(
        self, fn: Any, y: PyTree, aux: Any, args: Any, options: dict[str, Any], state: Any, tags: Any, result: Any
    ) -> tuple[PyTree, Any, dict[str, Any]]:
        """The root as it was found."""
        return y, aux, {}
