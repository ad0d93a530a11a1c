"""Standing still."""

import copy
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._core import ResultCode, tree_dot, tree_norm
from ...geometry import ResolvedRange, Snapshot, System
from ._balance import imbalance, leaves_balance
from ._base import AbstractStopRule, log, positive_field
from ._escape import DENSE_LIMIT as DENSE_LIMIT, leaves_saddle, moves_later
from ._time_scale import excess_loss, loss_time_scale

EPSILON = float(jnp.finfo(jnp.float64).eps)

_DEFAULT_RESOLUTION = 1e-3
_ROUNDING = 16 * EPSILON  # of outputs that are sums of many terms
_MOST_STEPS_BETWEEN = 10  # of two looks: a projection costs about as much as the decomposition of one step
_STEPS_PER_FOLD = 2
_PATIENCE = 50  # accepted steps
_PROGRESS = 0.1  # of the resolution: what counts as a fall of the loss
_VELOCITY_ROUNDING = 1e-12
_HOVERING = (
    10.0  # times the resolution: the imbalance at which steps that something else limits may leave weights that decay
)


class Stillness(eqx.Module):
    """What `Stationary` remembers.

    **Attributes:** `loss`: L - L* after the last step; `lowest`: the last value from which it fell no further, or with weight
    decay did not move; `since`: steps
    since then; `wait`: steps until the next look; `margin`: of the rule; `time_scale`: of the loss's first decrease, where the
    velocity is looked at.
    """

    loss: Float[Array, ""]
    lowest: Float[Array, ""]
    since: Int[Array, ""]
    wait: Int[Array, ""]
    margin: Float[Array, ""]
    time_scale: Float[Array, ""]


class Stationary(AbstractStopRule):
    """Stop where the run stands still: what the weights can still do for the loss is below what the run resolves.

    With g the gradient of the loss on the outputs and P the projection on the range of J (modes of A = J J^T above the rounding
    of its eigenvalues), ||P g|| / ||g|| is the share of the gradient that the weights can follow. It does not depend on the
    scale of J, so that a saddle of small weights is none: there the velocity is tiny and the share is not. For the squared
    loss half its square is the relative fall of the loss that the model's linearisation still allows. The run ends where

    - the share is at most `resolution`, or P g is rounding of the outputs (docs/stop_rules.md);
    - or the share is at most sqrt(resolution), a fall of the loss below its own accuracy, and in 50 accepted steps the loss has
      not fallen by a tenth of `resolution` of itself: then the run hovers at its accuracy;
    - or, for a flow with weight decay, w' = -J^T a - D w, where the share of w' in its two parts, which cancel at rest,
      ||w'|| / (||w' + D w|| + ||D w||), is at most `resolution`, or at most ten times that while in 50 accepted steps the
      loss has not changed by `resolution` of itself;
    - or, for another flow that does not rest where J^T g vanishes (`AbstractFlow.rests_with_gradient`), where the velocity is
      rounding: ||w'|| t <= 1e-12 ||w||, with t no less than the time scale (L - L*)/|dL/dt| of the start.

    A saddle is none of these, nor is a pause: the run goes on where along the part of J^T g that these modes do not explain the
    loss is concave, and the flow would leave within a thousand times the time that has passed; and where the velocity of the
    other flows is more than that at one of 512 later times, or grows along itself as fast.

    It is part of every `stop` of `simulate` that is not None, and ends a run with the code `stationary`, which is no failure;
    the message says why, where that can be known. Beyond 4096 outputs, where no Gram matrix is formed, J^T g must be rounding.
    Cost: nothing while the loss falls; otherwise at most every tenth step, unless it is near, one product with J and J^T, and
    a Gram matrix with its eigenvalues where these do not exclude it. `iterate` looks at it, where it is given, after the saved
    steps.

    **Arguments:** `resolution`: dimensionless; None takes the `rtol` of the run, in `iterate` 1e-3.

    **Raises:** `ConfigError` unless the resolution is positive and less than 1.
    """

    bisected: ClassVar[bool] = False
    code: ClassVar[ResultCode] = ResultCode.STATIONARY

    resolution: float | None = positive_field("Stationary: resolution", 1e-3, default=None, below=1.0)

    def at_accuracy(self, rtol: float) -> "Stationary":
        """With `rtol` as the resolution unless there is one."""
        return self if self.resolution is not None else Stationary(rtol)

    def prepare(self, start: Snapshot) -> PyTree:
        """The loss, and whether the start stands still."""
        excess, zero = excess_loss(start), jnp.zeros((), dtype=int)
        scale = jnp.ones(()) if start.rests_with_gradient else loss_time_scale(start)
        return Stillness(excess, excess, zero, zero, self._margin(start, jnp.asarray(False), scale), scale)

    def update(self, snapshot: Snapshot, memory: PyTree) -> PyTree:
        """Counts, and every few steps in which the loss does not move looks closer."""
        excess, resolution = excess_loss(snapshot), self._resolution()
        if snapshot.decay is None:
            fell = excess < (1 - _PROGRESS * resolution) * memory.lowest
        else:  # it may rise as well
            fell = jnp.abs(excess - memory.lowest) > resolution * memory.lowest
        since = jnp.where(fell, 0, memory.since + 1)
        patient = since >= _PATIENCE
        unmoved = jnp.abs(excess - memory.loss) <= resolution * jnp.abs(excess)
        near = (unmoved | patient) & (memory.wait <= 0)
        inside = copy.copy(snapshot)  # as in _margin
        margin = jax.lax.cond(near, lambda: self._margin(inside, patient, memory.time_scale), lambda: jnp.ones(()))
        # The farther the share is from what is allowed, the later the next look.
        pause = jnp.ceil(jnp.clip(_STEPS_PER_FOLD * margin, 0, _MOST_STEPS_BETWEEN)).astype(int)
        wait = jnp.where(near, pause, memory.wait - 1)
        return Stillness(excess, jnp.where(fell, excess, memory.lowest), since, wait, margin, memory.time_scale)

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """What was found at the last look: log of the share over what is allowed."""
        return memory.margin

    def is_over(self, time: float, weights: PyTree, system: System, flow: Any, horizon: float) -> bool:
        """Unless the run will move again: from a saddle that the modes of J J^T do not show, or at a later time."""
        now = jnp.asarray(time)
        if flow.dynamics.decay(weights, system) is not None:
            allowed = _HOVERING * self._resolution()
            return not bool(leaves_balance(weights, system, flow, now, jnp.asarray(horizon), allowed))
        if not flow.dynamics.rests_with_gradient:
            return not bool(moves_later(weights, system, flow, now, jnp.asarray(horizon), _VELOCITY_ROUNDING))
        if system.problem.y_train.size > DENSE_LIMIT:
            return True
        return not bool(leaves_saddle(weights, system, flow, now))

    def describe(self) -> str:
        """A clause."""
        return "the run stands still: what is left to gain is below its accuracy"

    def _resolution(self) -> Float[Array, ""]:
        return jnp.asarray(_DEFAULT_RESOLUTION if self.resolution is None else self.resolution)

    def _margin(self, snapshot: Snapshot, patient: Bool[Array, ""], time_scale: Float[Array, ""]) -> Float[Array, ""]:
        if snapshot.decay is not None:
            past = jnp.maximum(snapshot.time, time_scale)
            share = imbalance(snapshot.velocity, snapshot.weights, snapshot.decay, past)
            return log(share) - log(self._resolution() * jnp.where(patient, _HOVERING, 1.0))
        if not snapshot.rests_with_gradient:
            # Before the loss has had time to fall, a short time is no sign of rest.
            moved = tree_norm(snapshot.velocity) * jnp.maximum(snapshot.time, time_scale)
            return log(moved) - log(_VELOCITY_ROUNDING * tree_norm(snapshot.weights))
        resolution = self._resolution()
        gradient, rounding = _output_gradient(snapshot)
        allowed = jnp.where(patient, jnp.sqrt(resolution), resolution) * jnp.linalg.norm(gradient)
        allowed = jnp.maximum(allowed, rounding)
        bound = _least_followed(snapshot, gradient)
        # A copy: what a snapshot computes within a branch must not be kept for those outside of it.
        inside = copy.copy(snapshot)
        followed = jax.lax.cond(bound > allowed, lambda: bound, lambda: _followed(inside, gradient, allowed))
        return log(followed) - log(allowed)


def _output_gradient(snapshot: Snapshot) -> tuple[Float[Array, "samples outputs"], Float[Array, ""]]:
    """g, and how much of its norm is rounding of the outputs."""
    loss, targets, outputs = snapshot.system.loss, snapshot.system.problem.y_train, snapshot.train_outputs
    doubt = _ROUNDING * (jnp.abs(outputs) + jnp.abs(targets))
    return loss.gradient(outputs, targets), jnp.linalg.norm(loss.hessian_product(outputs, targets, doubt))


def _least_followed(snapshot: Snapshot, gradient: Float[Array, "samples outputs"]) -> Float[Array, ""]:
    """||q||^2 / ||J q|| <= ||P g|| with q = J^T g, by Cauchy and Schwarz: the part of g along J q."""
    pulled = snapshot.tangent.vjp(gradient)
    pushed = jnp.linalg.norm(snapshot.tangent.jvp(pulled))
    return jnp.where(pushed > 0, tree_dot(pulled, pulled) / jnp.where(pushed > 0, pushed, 1.0), 0.0)


def _followed(
    snapshot: Snapshot, gradient: Float[Array, "samples outputs"], allowed: Float[Array, ""]
) -> Float[Array, ""]:
    """||P g||; where no Gram matrix is formed 0 if J^T g is rounding, otherwise more than `allowed`."""
    if gradient.size > DENSE_LIMIT:
        pulled = snapshot.tangent.vjp(gradient)
        norm, pushed = tree_norm(pulled), jnp.linalg.norm(snapshot.tangent.jvp(pulled))
        # ||J q|| / ||q|| is a norm that J has at least.
        return jnp.where(norm**2 <= _ROUNDING * jnp.linalg.norm(gradient) * pushed, 0.0, 2 * allowed)
    return jnp.linalg.norm(ResolvedRange.of(snapshot.gram).project(gradient))
