"""Step-size control with errors measured in the outputs, relative to the present residual."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core import look_up, tree_rms
from ..geometry import AbstractTangent, System
from ..solvers import SolverChoice
from ._accuracy import Errors
from ._watch import Watch

# The shortest step, relative to the time that has passed, and at the start relative to the time scale of the loss. The second
# is tiny because on a saddle that time scale is 1e12 and more, and says little about the motion of the weights.
_SMALLEST_RELATIVE_STEP, _SMALLEST_FIRST_STEP = 1e-13, 1e-30
_SMALLEST_ERROR = 1e-12
# The cost of `evaluations` in velocities: a product with the Jacobian takes as long as two.
VELOCITIES = np.asarray([1, 2])
_LARGEST_EASING = 4.0
_AFTER_REJECTION = 0.5
_STRETCH = 0.1  # share of its length by which a step may be longer to end where the integration pauses


class Tolerances(eqx.Module):
    """The errors that are tolerated in one step.

    **Attributes:**

    - `relative`: rtol.
    - `residual`: atol: smaller errors of the residual are rounding.
    - `weights`: atol for the weights: atol, or atol times the rms of the first weights if that is smaller. Weights that start
      small may grow, and their relative error grows with them.
    """

    relative: Any
    residual: Any
    weights: Any

    @classmethod
    def at(cls, rtol: float, atol: float, weights: PyTree) -> "Tolerances":
        """The tolerances of a run that starts at `weights`."""
        scale = float(tree_rms(weights))
        return cls(rtol, atol, atol * min(scale, 1.0) if scale > 0 else atol)

    @property
    def floor(self) -> Any:
        """The residual at which rtol and atol tolerate the same error. The error of a smaller one counts as rounding."""
        return self.residual / self.relative


class Change(eqx.Module):
    """A step that an error norm judges.

    **Attributes:**

    - `weights`, `candidate`: the weights before and after the step.
    - `error`: the estimated error of the step, a tree like the weights.
    - `tangent`: the tangent of the model at the candidate.
    - `loss_before`, `loss_after`: L before and after.
    """

    weights: PyTree
    candidate: PyTree
    error: PyTree
    tangent: AbstractTangent
    loss_before: Float[Array, ""]
    loss_after: Float[Array, ""]


class AbstractErrorNorm(eqx.Module):
    """Turns the estimated error of the weights into one number. A step is accepted if the number is below 1."""

    @abc.abstractmethod
    def scaled_error(self, change: Change, system: System, tolerated: Tolerances) -> Float[Array, ""]:
        """The error divided by the tolerated one."""


class WeightErrorNorm(AbstractErrorNorm):
    """The rms error of all weights, divided by rtol times the rms of the weights plus their atol.

    It does not see the loss: with loose tolerances the residual hovers at the tolerance and does not become smaller.
    """

    def scaled_error(self, change: Change, system: System, tolerated: Tolerances) -> Float[Array, ""]:
        """rms(error) / (rtol max(rms(w), rms(w')) + atol)."""
        scale = jnp.maximum(tree_rms(change.weights), tree_rms(change.candidate))
        return tree_rms(change.error) / (tolerated.relative * scale + tolerated.weights)


class FunctionErrorNorm(AbstractErrorNorm):
    """The effect J e of the error on the training outputs, relative to the present loss, and the error of the weights.

    For the squared loss the first is rms(J e) / rms(f - y), so that a relative loss of any size is reached with the same
    relative accuracy, and the width of the network does not matter. For any loss it is the larger of two effects that J e has
    on L - L*, relative to r = sqrt(2 (L - L*)): that of the curvature, sqrt(e^T J^T H J e) / r, and that of the slope,
    <|g|, |J e|> / r^2 (by Cauchy and Schwarz not above the first one for the squared loss). The residual is the smaller of
    those before and after the step, so that a step that overshoots is not judged by its own mistake. Errors in directions that
    the training outputs do not see are bounded by `WeightErrorNorm` at the same rtol. Derived in docs/theory.md.
    """

    def scaled_error(self, change: Change, system: System, tolerated: Tolerances) -> Float[Array, ""]:
        """The largest of the three scaled errors."""
        residual = residual_of(jnp.minimum(change.loss_before, change.loss_after), system)
        size = output_error(change.tangent, change.error, system, jnp.maximum(residual, tolerated.residual))
        in_outputs = size / (tolerated.relative * residual + tolerated.residual)
        return jnp.maximum(in_outputs, WeightErrorNorm().scaled_error(change, system, tolerated))


def output_error(
    tangent: AbstractTangent, error: PyTree, system: System, residual: Float[Array, ""]
) -> Float[Array, ""]:
    """The effect of an error of the weights on the residual r = `residual` > 0, the larger one of curvature and slope.

    It has the unit of r; see `FunctionErrorNorm`.
    """
    loss, targets, outputs = system.loss, system.problem.y_train, tangent.outputs
    pushed = tangent.jvp(error)
    curvature = jnp.sqrt(jnp.maximum(jnp.vdot(pushed, loss.hessian_product(outputs, targets, pushed)), 0.0))
    slope = jnp.sum(jnp.abs(loss.gradient(outputs, targets) * pushed)) / residual
    return jnp.maximum(curvature, slope)


def residual_of(value: Float[Array, ""], system: System) -> Float[Array, ""]:
    """The residual r = sqrt(2 (L - L*)) for L = `value`. For the squared loss it is rms(f - y)."""
    return jnp.sqrt(2 * jnp.maximum(value - system.loss.minimum(system.problem.y_train), 0.0))


error_norm_kinds: dict[str, Callable[[], AbstractErrorNorm]] = {
    "function": FunctionErrorNorm,
    "weights": WeightErrorNorm,
}


def get_error_norm(name: str) -> AbstractErrorNorm:
    """The error norm called "function" or "weights". **Raises:** `ConfigError` for an unknown name."""
    return look_up(name, error_norm_kinds, "error norm")()


class RunMemory(eqx.Module):
    """What is remembered from one accepted step to the next.

    **Attributes:**

    - `loss`: L.
    - `lowest`: the lowest loss so far, including the penalty of a flow that has one.
    - `difficulty`: the scaled error of the step divided by its length (in units of the loss's time scale) to the power of the
      order.
    - `worst_errors`: the largest estimated errors of the run so far (2,): of the training residual, and of the test outputs
      relative to `movement` (0 without test inputs).
    - `earlier_errors`: the same before the last step.
    - `last_error`: the relative error of the residual after the last step.
    - `movement`: how far the test outputs have moved at most, rms.
    - `start`, `end`: the flow times at which the last step begins and ends.
    """

    loss: Float[Array, ""]
    lowest: Float[Array, ""]
    difficulty: Float[Array, ""]
    worst_errors: Float[Array, " 2"]
    earlier_errors: Float[Array, " 2"]
    last_error: Float[Array, ""]
    movement: Float[Array, ""]
    start: Float[Array, ""]
    end: Float[Array, ""]

    def errors_until(self, time: float) -> Errors:
        """The largest errors up to a `time` within the last step, where a stop rule may have ended the run.

        Within the step they are interpolated linearly.
        """
        length = float(self.end - self.start)
        share = min(max((time - float(self.start)) / length, 0.0), 1.0) if length > 0 else 1.0
        pairs = zip(np.asarray(self.earlier_errors).tolist(), np.asarray(self.worst_errors).tolist(), strict=True)
        return Errors(*(a + share * (b - a) if share < 1 and math.isfinite(b) else b for a, b in pairs))


class ControllerState(NamedTuple):
    """What the controller carries from one step to the next.

    **Attributes:**

    - `rule`: the state of the PID rule.
    - `memory`: what is remembered of the accepted steps.
    - `watch`: the state of the stop rules.
    - `steps`: the number of steps.
    - `evaluations`: the number of velocities and of products with their Jacobian (2,), as far as the solver reports them.
    - `next_end`: the flow time at which the next step is to end.
    """

    rule: Any
    memory: RunMemory
    watch: Watch
    steps: Int[Array, ""]
    evaluations: Int[Array, " 2"]
    next_end: Float[Array, ""]


class ResidualController(diffrax.AbstractAdaptiveStepSizeController):
    """A Diffrax PID controller that takes the error from an `AbstractErrorNorm` instead of a norm over the state.

    The state is (weights, integrals over time); only the errors of the weights are controlled. The run ends with the result
    `dt_min_reached` if a rejected step cannot be made shorter without vanishing beside the time, and with `max_steps_reached`
    if it has used up its steps before `args.horizon`. (Diffrax's own limit of steps is compiled into the program, while this
    one is an array, so that another limit needs no compilation.)

    **Arguments:**

    - `rtol`, `atol`, `weight_atol`: the tolerated errors (`Tolerances`).
    - `error_norm`: turns the error of a step into a number.
    - `max_steps`: the number of steps allowed, accepted and rejected.
    - `pause_at`, `pause_after`: a flow time and a number of steps. The integration pauses at the first of them, with the result
      `event_occurred`.
    - `next_end`: the flow time at which the next step is to end, for an integration that is resumed.
    - `most_velocities`, `least_velocities`: once the run has taken `least_velocities`, it also pauses after a step that took
      more than `most_velocities`, or that stability has limited, as its solver reports.
    - `steps_to_pauses`: whether a step ends at `pause_at`.
    - `monotone`: whether the flow never increases the loss plus its penalty if it has one (`AbstractFlow.penalty`). An increase
      is then an error, too: no step is accepted that ends with r = sqrt(2 (L - L*)) more than rtol r + atol above the lowest
      one so far, so that rises cannot add up.
    - `min_growth`, `max_growth`: limits of the growth of the step size from one step to the next.
    - `anticipation`: the share (0 to 1) of the trend that the next step takes up. Along a flow that converges, each step is
      easier than the last one, and a rule that sees only the last error lags behind (Gustafsson's predictive control, ACM
      Trans. Math. Softw. 1994).
    - `norm`: the norm of the PID rule, of a single number.
    """

    rtol: Any
    atol: Any
    weight_atol: Any
    error_norm: AbstractErrorNorm
    max_steps: Any = math.inf
    pause_at: Any = math.inf
    pause_after: Any = math.inf
    next_end: Any = math.nan
    most_velocities: Any = math.inf
    least_velocities: Any = math.inf
    steps_to_pauses: Any = False
    monotone: bool = eqx.field(static=True, default=False)
    min_growth: float = eqx.field(static=True, default=0.2)
    max_growth: float = eqx.field(static=True, default=10.0)
    anticipation: float = eqx.field(static=True, default=0.0)
    norm: Callable[[PyTree], Any] = eqx.field(static=True, default=jnp.abs)

    @property
    def tolerated(self) -> Tolerances:
        """The tolerated errors."""
        return Tolerances(self.rtol, self.atol, self.weight_atol)

    def for_steps_of(self, chosen: SolverChoice, most_velocities: float) -> "ResidualController":
        """The controller with the limits that belong to the steps of the chosen solver."""
        change = chosen.change
        return dataclasses.replace(
            self,
            min_growth=chosen.min_growth,
            max_growth=chosen.max_growth,
            anticipation=chosen.anticipation,
            most_velocities=np.asarray(float(most_velocities)),
            least_velocities=np.asarray(math.inf if change is None else float(change.least_velocities)),
        )

    def pausing(self, time: float, step: float) -> "ResidualController":
        """The controller with a pause at the flow time `time` or after `step` steps, whichever comes first."""
        return dataclasses.replace(self, pause_at=np.asarray(time), pause_after=np.asarray(step))

    def resumed(self, next_end: Float[Array, ""]) -> "ResidualController":
        """The controller for an integration that goes on with a step that ends at `next_end`."""
        return dataclasses.replace(self, next_end=self._not_past_pause(next_end, 0.0))

    def _not_past_pause(self, end: Float[Array, ""], length: Any) -> Float[Array, ""]:
        """The `end` of a step; or the next pause, if steps end at pauses and it lies before `end` or soon after it."""
        reaches = self.steps_to_pauses & (end + _STRETCH * length >= self.pause_at)
        return jnp.where(reaches, self.pause_at, end)

    def _objective(self, args: Any, weights: PyTree, loss: Float[Array, ""]) -> Float[Array, ""]:
        """What a monotone flow never increases: the `loss`, plus the penalty of a flow that has one."""
        penalty = args.measurement.flow.dynamics.penalty(weights, args.system) if self.monotone else None
        return loss if penalty is None else loss + penalty

    def _inner(self) -> diffrax.PIDController:
        return diffrax.PIDController(
            rtol=0.0,
            atol=1.0,
            norm=self.norm,
            pcoeff=0.2,
            icoeff=0.8,
            factormin=self.min_growth,
            factormax=self.max_growth,
        )

    def wrap(self, direction: Any) -> "ResidualController":
        """The controller itself: flow time runs only forwards."""
        return self

    def init(
        self, terms: Any, t0: Any, t1: Any, y0: Any, dt0: Any, args: Any, func: Any, error_order: Any
    ) -> tuple[Any, ControllerState]:
        """The first step ends at t0 + dt0; that of an integration that is resumed at `next_end`."""
        first = self.next_end - t0 if dt0 is None else dt0
        end, state = self._inner().init(terms, t0, t1, jnp.zeros(()), first, args, func, error_order)
        end = self.next_end if dt0 is None else end
        loss, nothing = args.system.train_loss(y0[0]), jnp.zeros(())
        memory = RunMemory(
            loss=loss,
            lowest=self._objective(args, y0[0], loss),
            difficulty=nothing,
            worst_errors=jnp.zeros(2),
            earlier_errors=jnp.zeros(2),
            last_error=nothing,
            movement=nothing,
            start=nothing,
            end=nothing,
        )
        steps, evaluations = jnp.zeros((), dtype=int), jnp.zeros(2, dtype=int)
        first = ControllerState(state, memory, Watch.begin(args), steps, evaluations, jnp.asarray(end))
        return end, jax.tree.map(jnp.asarray, first)

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
        """Judge the step by its scaled error, and let the PID rule choose the next one."""
        (weights, _), (candidate, _), (error, _) = y0, y1_candidate, y_error.local
        system, (inner_state, memory, watch, steps, evaluations, _) = args.system, controller_state
        tangent = system.tangent(candidate)
        after = system.loss.value(tangent.outputs, system.problem.y_train)
        change = Change(weights, candidate, error, tangent, memory.loss, after)
        scaled = self.error_norm.scaled_error(change, system, self.tolerated)
        objective = self._objective(args, candidate, after)
        if self.monotone:
            residual = residual_of(memory.lowest, system)
            tolerated = self.tolerated.relative * residual + self.tolerated.residual
            rise = (residual_of(objective, system) - residual) / tolerated
            scaled = jnp.maximum(scaled, rise)
        # A solver marks a failed step by an infinite error. Times zero it is nan, which would pass as a small error.
        scaled = jnp.where(jnp.isfinite(scaled), scaled, jnp.inf)
        nothing = jnp.zeros(())
        keep, next_start, next_end, jump, state, result = self._inner().adapt_step_size(
            t0, t1, nothing, nothing, None, scaled, error_order, inner_state
        )
        difficulty = jnp.maximum(scaled, _SMALLEST_ERROR) / ((t1 - t0) / args.time_scale) ** error_order
        eased = jnp.where(
            memory.difficulty > 0, (memory.difficulty / difficulty) ** (self.anticipation / error_order), 1.0
        )
        growth = (next_end - next_start) / (t1 - t0)
        anticipated = jnp.minimum(growth * jnp.clip(eased, 1.0, _LARGEST_EASING), self.max_growth)
        # After a rejected step the error did not behave as the order predicts, so the next one is at most half as long.
        growth = jnp.where(keep, jnp.maximum(anticipated, growth), jnp.minimum(growth, _AFTER_REJECTION))
        next_end = next_start + growth * (t1 - t0)
        outdone = jnp.asarray(False)
        if y_error.report is not None:
            # Diffrax looks for nan in everything that comes with an error, and turns these counts into floats.
            taken = jnp.stack([y_error.report.num_velocities, y_error.report.num_products])
            evaluations = evaluations + taken.astype(int)
            worth = jnp.dot(evaluations, VELOCITIES) > self.least_velocities
            is_outdone = (y_error.report.num_velocities > self.most_velocities) | (y_error.report.is_limited > 0)
            outdone = keep & worth & is_outdone
            next_end = jnp.minimum(next_end, next_start + y_error.report.longest)
        movement, errors = self._run_errors(args, candidate, tangent, y_error.carried, after, memory.movement)
        new = RunMemory(
            after,
            jnp.minimum(objective, memory.lowest),
            difficulty,
            jnp.maximum(errors, memory.worst_errors),
            memory.worst_errors,
            errors[0],
            movement,
            jnp.asarray(t0, dtype=jnp.float64),
            jnp.asarray(t1, dtype=jnp.float64),
        )
        memory = jax.tree.map(lambda new, old: jnp.where(keep, new, old), new, memory)
        smallest = _SMALLEST_RELATIVE_STEP * next_start + _SMALLEST_FIRST_STEP * args.time_scale
        vanishing = ~keep & (next_end - next_start <= smallest)
        result = diffrax.RESULTS.where(vanishing, diffrax.RESULTS.dt_min_reached, result)
        spent = (steps + 1 >= self.max_steps) & (next_start < args.horizon)
        result = diffrax.RESULTS.where(spent, diffrax.RESULTS.max_steps_reached, result)
        watch = watch.after(args, t0, t1, y1_candidate, tangent, keep)
        pauses = (next_start >= self.pause_at) | (steps + 1 >= self.pause_after) | outdone
        pauses = pauses & (result == diffrax.RESULTS.successful)
        result = diffrax.RESULTS.where(watch.over | pauses, diffrax.RESULTS.event_occurred, result)
        tolerance = jnp.asarray(self.tolerated.relative)
        next_end = watch.limited(args, jnp.asarray(next_start), jnp.asarray(next_end), tolerance)
        # After a pause the next one is not known yet; `resumed` limits the step then.
        limited = self._not_past_pause(next_end, next_end - next_start)
        next_end = jnp.where(next_start < self.pause_at, limited, next_end)
        state = ControllerState(state, memory, watch, steps + 1, evaluations, next_end)
        return keep, next_start, next_end, jump, state, result

    def _run_errors(
        self,
        args: Any,
        weights: PyTree,
        tangent: AbstractTangent,
        carried: PyTree,
        loss: Float[Array, ""],
        movement: Float[Array, ""],
    ) -> tuple[Float[Array, ""], Float[Array, " 2"]]:
        """How far the test outputs have moved at most, and the relative errors of the whole run (2,).

        The first error is that of the training outputs, relative to the residual; the second that of the test outputs,
        relative to their movement. The floor of atol is added to both denominators.
        """
        system, floor = args.system, self.tolerated.floor
        residual = residual_of(loss, system) + floor
        error, test_error = output_error(tangent, carried, system, residual) / residual, jnp.zeros(())
        if args.probe is not None:
            moved, displaced = args.probe.error(system, weights, carried)
            movement = jnp.maximum(movement, moved)
            test_error = displaced / (movement + floor)
        errors = jnp.stack([error, test_error])
        return movement, jnp.where(jnp.isnan(errors), jnp.inf, errors)
