"""Step-size control that measures errors where they matter: in the outputs, relative to the present residual."""

import abc
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import look_up, tree_rms
from ..geometry import System
from ._progress import report

_SMALLEST_RELATIVE_STEP = 1e-13


class AbstractErrorNorm(eqx.Module):
    """Turns the solver's error estimate of the weights into one number; a step is accepted where it is below 1."""

    @abc.abstractmethod
    def scaled_error(
        self,
        weights: PyTree,
        candidate: PyTree,
        error: PyTree,
        system: System,
        rtol: Float[Array, ""],
        atol: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The error over what is tolerated.

        **Arguments:** `weights`, `candidate`: before and after the step; `error`: the estimate of the local error, like them.
        """


class WeightErrorNorm(AbstractErrorNorm):
    """rms of the error over all weights, over rtol times the rms of the weights plus atol.

    Knows nothing of the loss: with loose tolerances the residual hovers at the tolerance and never reaches a small one.
    """

    def scaled_error(
        self,
        weights: PyTree,
        candidate: PyTree,
        error: PyTree,
        system: System,
        rtol: Float[Array, ""],
        atol: Float[Array, ""],
    ) -> Float[Array, ""]:
        """rms(error) / (rtol max(rms(w), rms(w')) + atol)."""
        return tree_rms(error) / (rtol * jnp.maximum(tree_rms(weights), tree_rms(candidate)) + atol)


class FunctionErrorNorm(AbstractErrorNorm):
    """The error's effect J e on the training outputs, relative to the present loss; and the weights' error beside it.

    For the squared loss the first is rms(J e) over rms(f - y), so that a relative loss of any size is reached with the same
    relative accuracy and the width of the network does not matter. For any loss it is the larger of two effects that J e
    has on L - L*, relative to r = sqrt(2 (L - L*)): the curvature's, sqrt(e^T J^T H J e) / r, and the slope's,
    <|g|, |J e|> / r^2 (equal to the first or below it for the squared loss, by Cauchy and Schwarz). The residual is the
    smaller of those before and after the step: a step that overshoots is not judged by its own mistake. Errors in
    directions the training outputs do not see are bounded by `WeightErrorNorm` at the same rtol. Derived in docs/theory.md.
    """

    def scaled_error(
        self,
        weights: PyTree,
        candidate: PyTree,
        error: PyTree,
        system: System,
        rtol: Float[Array, ""],
        atol: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The largest of the three."""
        loss, targets = system.loss, system.problem.y_train
        minimum = loss.minimum(targets)
        outputs, change = jax.jvp(system.outputs, (candidate,), (error,))
        before, after = system.train_loss(weights), loss.value(outputs, targets)
        residual = jnp.sqrt(2 * jnp.maximum(jnp.minimum(before, after) - minimum, 0.0))
        tolerated = rtol * residual + atol
        curvature = jnp.sqrt(jnp.maximum(jnp.vdot(change, loss.hessian_product(outputs, targets, change)), 0.0))
        slope = jnp.sum(jnp.abs(loss.gradient(outputs, targets) * change)) / jnp.maximum(residual, atol)
        in_outputs = jnp.maximum(curvature, slope) / tolerated
        in_weights = WeightErrorNorm().scaled_error(weights, candidate, error, system, rtol, atol)
        return jnp.maximum(in_outputs, in_weights)


error_norm_kinds: dict[str, Callable[[], AbstractErrorNorm]] = {
    "function": FunctionErrorNorm,
    "weights": WeightErrorNorm,
}


def get_error_norm(name: str) -> AbstractErrorNorm:
    """The error norm called "function" or "weights". **Raises:** `ConfigError` for an unknown name."""
    return look_up(name, error_norm_kinds, "error norm")()


class ResidualController(diffrax.AbstractAdaptiveStepSizeController):
    """A Diffrax PID controller fed with an `AbstractErrorNorm` instead of a norm over the state.

    The state it sees is (weights, integrals over time); integrals are carried along, not controlled. It ends the run with
    the result `dt_min_reached` when a rejected step cannot be made smaller without vanishing beside the time.
    """

    rtol: Any
    atol: Any
    error_norm: AbstractErrorNorm
    norm: Callable[[PyTree], Any] = eqx.field(static=True, default=jnp.abs)

    def _inner(self) -> diffrax.PIDController:
        return diffrax.PIDController(rtol=0.0, atol=1.0, norm=self.norm, pcoeff=0.2, icoeff=0.8)

    def wrap(self, direction: Any) -> "ResidualController":
        """Flow time runs forwards only; nothing to remember."""
        return self

    def init(
        self, terms: Any, t0: Any, t1: Any, y0: Any, dt0: Any, args: Any, func: Any, error_order: Any
    ) -> tuple[Any, Any]:
        """The first step ends at t0 + dt0."""
        return self._inner().init(terms, t0, t1, jnp.zeros(()), dt0, args, func, error_order)

    def adapt_step_size(
        self,
        t0: Any,
        t1: Any,
        y0: Any,
        y1_candidate: Any,
        args: Any,
        y_error: Any,
        error_order: Any,
        controller_state: Any,
    ) -> tuple[Any, Any, Any, Any, Any, Any]:
        """Judge the step by the scaled error and let the PID rule choose the next."""
        (weights, _), (candidate, _), (error, _) = y0, y1_candidate, y_error
        scaled = self.error_norm.scaled_error(weights, candidate, error, args.system, self.rtol, self.atol)
        # An infinite estimate (the solver's sign of a failed step) times a zero is nan, which would be taken for small.
        scaled = jnp.where(jnp.isfinite(scaled), scaled, jnp.inf)
        if args.progress is not None:
            jax.debug.callback(report, args.progress, t1, args.system.train_loss(candidate), scaled < 1)
        nothing = jnp.zeros(())
        keep, next_start, next_end, jump, state, result = self._inner().adapt_step_size(
            t0, t1, nothing, nothing, None, scaled, error_order, controller_state
        )
        vanishing = ~keep & (next_end - next_start <= _SMALLEST_RELATIVE_STEP * (next_start + args.time_scale))
        result = diffrax.RESULTS.where(vanishing, diffrax.RESULTS.dt_min_reached, result)
        return keep, next_start, next_end, jump, state, result
