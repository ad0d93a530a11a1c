"""An implicit Runge-Kutta solver whose linear systems have the size NC: Kvaerno's method with the low-rank linearisation."""

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
# Of D w: where a flow with weight decay rests, its velocity is the difference of this and of as much, which rounding leaves.
_ROUNDING = 1e-12
_TINY = 1e-30


class LowRankKvaerno5(AbstractLinearisedSolver):
    """Diffrax's Kvaerno5 (order 5, L-stable, embedded order 4) for flows, in O(N M + NC^2) memory.

    Its stages are solved by a chord method with I - gamma h W in place of the Jacobian, inverted in NC dimensions (Woodbury).
    Rounding limits a step h over a mode of rate beta that has yet to decay: its relative error is about 2e-16 h beta.
    Source: Kvaerno, "Singly diagonally implicit Runge-Kutta methods with an explicit first stage", BIT 2004.

    **Arguments:** `decomposition`: how the modes of the Gram matrix are found; `iteration_rtol`: the error of a stage's
    velocity at which its iteration ends, relative to that velocity.
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
        """The vector field at the start, which each step hands to the next."""
        return self._inner(unwrap(terms)).init(terms, t0, t1, y0, args)

    def linearised_step(
        self, terms: LinearisedTerm, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[tuple[PyTree, PyTree, dict[str, Any], Any, diffrax.RESULTS], Linearisation]:
        """One step from t0 to t1, and its linearisation."""
        weights = terms.split(y0)[0]
        linearisation, rates = terms.linearise(t0, weights, self.decomposition), terms.decay(weights)
        atol = _TINY if rates is None else _TINY + _ROUNDING * tree_rms(tree_multiply(rates, weights))
        solver = self._inner(terms, linearisation, atol)
        return solver.step(terms, t0, t1, y0, args, solver_state, made_jump), linearisation


class _ChordState(eqx.Module):
    """**Attributes:** `linearisation` and `gain` = gamma h, fixed for the step; the sizes of the last two corrections."""

    linearisation: Linearisation
    gain: Float[Array, ""]
    correction: Float[Array, ""]
    previous: Float[Array, ""]
    iterations: Int[Array, ""]


class LowRankChord(optx.AbstractRootFinder):
    """Newton's iteration for the implicit stages of a Diffrax solver with the fixed inverse

        (I - c W)^(-1) x = x - c J^T L diag(1/(1 + c beta)) Rt J x,   c = gamma h,

    and with weight decay (I - c W)^(-1) = (1 + c lambda)^(-1) times the same with c/(1 + c lambda) for c.

    **Arguments:** `terms`: the term that is integrated; `linearisation`: W, at the start of the step; `rtol`: where to stop,
    relative to the velocity; `atol`: and absolutely, rms.
    """

    terms: LinearisedTerm
    linearisation: Linearisation | None
    rtol: float
    atol: Any = _TINY
    norm: Any = eqx.field(static=True, default=optx.rms_norm)

    def init(
        self, fn: Any, y: PyTree, args: Any, options: dict[str, Any], f_struct: Any, aux_struct: Any, tags: frozenset
    ) -> _ChordState:
        """The first implicit stage's; Diffrax hands the state to the stages after it."""
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
            # (1 + c lambda) I + c J^T L Rt J, divided by its first factor.
            weights = tree_scale(1 / (1 + gain * linearisation.decay), weights)
            gain = gain / (1 + gain * linearisation.decay)
        amplitudes = linearisation.right @ linearisation.push(weights) / (1 + gain * linearisation.rates)
        solved = tree_add_scaled(weights, -gain, linearisation.pull(linearisation.left @ amplitudes))
        new = tree_subtract(y, self.terms.join(solved, integrals))
        # The integrals follow from the weights and are not iterated on.
        size = tree_rms(solved) / (self.rtol * tree_rms(self.terms.split(new)[0]) + self.atol)
        return new, _ChordState(linearisation, state.gain, size, state.correction, state.iterations + 1), aux

    def terminate(
        self, fn: Any, y: PyTree, args: Any, options: dict[str, Any], state: _ChordState, tags: frozenset
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:
        """Stop where the geometric series of corrections adds less than the tolerance, or where it diverges."""
        rate = state.correction / state.previous
        twice = state.iterations >= 2
        converged = (state.correction < 1e-3) | (twice & (rate < 1) & (state.correction * rate < (1 - rate)))
        diverged = ~jnp.isfinite(state.correction) & (state.iterations >= 1) | (twice & (rate > 2) & ~converged)
        result = optx.RESULTS.where(diverged, optx.RESULTS.nonlinear_divergence, optx.RESULTS.successful)
        return converged | diverged, result

    def postprocess(
        self, fn: Any, y: PyTree, aux: Any, args: Any, options: dict[str, Any], state: Any, tags: Any, result: Any
    ) -> tuple[PyTree, Any, dict[str, Any]]:
        """Nothing more."""
        return y, aux, {}
