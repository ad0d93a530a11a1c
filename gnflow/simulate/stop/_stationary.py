"""Stop when the run stands still."""

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
_ROUNDING = 16 * EPSILON  # relative rounding of outputs that are sums of many terms
_MOST_STEPS_BETWEEN = 10  # steps between two looks: a projection costs about as much as the decomposition of one step
_STEPS_PER_FOLD = 2
_PATIENCE = 50  # accepted steps
_PROGRESS = 0.1  # the fall of the loss that counts, in units of the resolution
_VELOCITY_ROUNDING = 1e-12
# In units of the resolution: the imbalance at which weights that decay may hover if something else than the error limits the
# steps.
_HOVERING = 10.0


class Stillness(eqx.Module):
    """What `Stationary` remembers.

    **Attributes:**

    - `loss`: L - L* after the last step.
    - `lowest`: the last value from which the loss has not fallen since (with weight decay: not moved).
    - `since`: the number of steps since then.
    - `wait`: the number of steps until the next look.
    - `margin`: the margin of the rule at the last look.
    - `time_scale`: the flow time scale of the loss's first decrease; 1 for a flow that rests where the gradient vanishes.
    """

    loss: Float[Array, ""]
    lowest: Float[Array, ""]
    since: Int[Array, ""]
    wait: Int[Array, ""]
    margin: Float[Array, ""]
    time_scale: Float[Array, ""]


class Stationary(AbstractStopRule):
    """Stop where the run stands still, that is, where the loss can fall by less than the run resolves.

    Let g be the gradient of the loss on the outputs and P the projection on the range of J (the modes of A = J J^T above the
    rounding of its eigenvalues). Then ||P g|| / ||g|| is the share of the gradient that the weights can follow. It does not
    depend on the scale of J, and so does not mistake a saddle of small weights for rest: there the velocity is tiny, but the
    share is not. For the squared loss half the square of the share is the relative fall of the loss that the model's
    linearisation still allows. The run ends in one of these cases:

    - The share is at most `resolution`, or P g is rounding of the outputs (docs/stop_rules.md).
    - The share is at most sqrt(resolution), a fall of the loss below its own accuracy, and in 50 accepted steps the loss has
      not fallen by a tenth of `resolution` of itself. Then the run hovers at its accuracy.
    - A flow with weight decay, w' = -J^T a - D w, has an imbalance ||w'|| / (||w' + D w|| + ||D w||) of at most `resolution`
      (the two parts of w' cancel at rest); or of at most ten times that, while in 50 accepted steps the loss has not changed by
      `resolution` of itself.
    - The velocity of another flow that does not rest where J^T g vanishes (`AbstractFlow.rests_with_gradient`) is rounding:
      ||w'|| t <= 1e-12 ||w||, with t at least the time scale (L - L*)/|dL/dt| of the start.

    Saddles and pauses do not end a run. It goes on if the loss is concave along the part of J^T g that the modes above do not
    explain, and the flow would leave within a thousand times the time that has passed. The flows of the last two cases go on if
    their velocity exceeds these bounds at one of 512 later times; one with weight decay also if its velocity grows along
    itself as fast.

    The rule is part of every `stop` of `simulate` that is not None. It ends a run with the code `stationary`, which is not a
    failure, and the message says why if that can be known. Beyond 4096 outputs no Gram matrix is formed, and J^T g must be
    rounding. It costs nothing while the loss falls. Otherwise it costs a product with J and with J^T at most every tenth step
    (more often near rest), and a Gram matrix with its eigenvalues only if these products do not exclude rest. `iterate`
    evaluates it only if it is given, after the saved steps.

    **Arguments:**

    - `resolution`: dimensionless. None takes the `rtol` of the run, and 1e-3 in `iterate`.

    **Raises:** `ConfigError` unless the resolution is positive and less than 1.
    """

    bisected: ClassVar[bool] = False
    code: ClassVar[ResultCode] = ResultCode.STATIONARY

    resolution: float | None = positive_field("Stationary: resolution", 1e-3, default=None, below=1.0)

    def at_accuracy(self, rtol: float) -> "Stationary":
        """The rule with `rtol` as its resolution, unless it has one."""
        return self if self.resolution is not None else Stationary(rtol)

    def prepare(self, start: Snapshot) -> PyTree:
        """The first loss, and the margin at the start."""
        excess, zero = excess_loss(start), jnp.zeros((), dtype=int)
        scale = jnp.ones(()) if start.rests_with_gradient else loss_time_scale(start)
        return Stillness(excess, excess, zero, zero, self._margin(start, jnp.asarray(False), scale), scale)

    def update(self, snapshot: Snapshot, memory: PyTree) -> PyTree:
        """Count the steps without progress, and every few of them compute the margin."""
        excess, resolution = excess_loss(snapshot), self._resolution()
        if snapshot.decay is None:
            fell = excess < (1 - _PROGRESS * resolution) * memory.lowest
        else:  # with weight decay the loss may rise, too
            fell = jnp.abs(excess - memory.lowest) > resolution * memory.lowest
        since = jnp.where(fell, 0, memory.since + 1)
        patient = since >= _PATIENCE
        unmoved = jnp.abs(excess - memory.loss) <= resolution * jnp.abs(excess)
        near = (unmoved | patient) & (memory.wait <= 0)
        inside = copy.copy(snapshot)  # as in _margin
        margin = jax.lax.cond(near, lambda: self._margin(inside, patient, memory.time_scale), lambda: jnp.ones(()))
        # The farther the share is from the allowed one, the later is the next look.
        pause = jnp.ceil(jnp.clip(_STEPS_PER_FOLD * margin, 0, _MOST_STEPS_BETWEEN)).astype(int)
        wait = jnp.where(near, pause, memory.wait - 1)
        return Stillness(excess, jnp.where(fell, excess, memory.lowest), since, wait, margin, memory.time_scale)

    def margin(self, snapshot: Snapshot, memory: PyTree) -> Float[Array, ""]:
        """The margin at the last look: the log of the share over the allowed one."""
        return memory.margin

    def is_over(self, time: float, weights: PyTree, system: System, flow: Any, horizon: float) -> bool:
        """True unless the run will move again, from a saddle that the modes of J J^T do not show or at a later time."""
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
        """The rule as a clause."""
        return "the run stands still: what is left to gain is below its accuracy"

    def _resolution(self) -> Float[Array, ""]:
        return jnp.asarray(_DEFAULT_RESOLUTION if self.resolution is None else self.resolution)

    def _margin(self, snapshot: Snapshot, patient: Bool[Array, ""], time_scale: Float[Array, ""]) -> Float[Array, ""]:
        if snapshot.decay is not None:
            past = jnp.maximum(snapshot.time, time_scale)
            share = imbalance(snapshot.velocity, snapshot.weights, snapshot.decay, past)
            return log(share) - log(self._resolution() * jnp.where(patient, _HOVERING, 1.0))
        if not snapshot.rests_with_gradient:
            # A short time with little movement is not a sign of rest before the loss has had time to fall.
            moved = tree_norm(snapshot.velocity) * jnp.maximum(snapshot.time, time_scale)
            return log(moved) - log(_VELOCITY_ROUNDING * tree_norm(snapshot.weights))
        resolution = self._resolution()
        gradient, rounding = _output_gradient(snapshot)
        allowed = jnp.where(patient, jnp.sqrt(resolution), resolution) * jnp.linalg.norm(gradient)
        allowed = jnp.maximum(allowed, rounding)
        bound = _least_followed(snapshot, gradient)
        # A snapshot keeps what it computes. Values that are traced inside a branch must not be used outside, hence the copy.
        inside = copy.copy(snapshot)
        followed = jax.lax.cond(bound > allowed, lambda: bound, lambda: _followed(inside, gradient, allowed))
        return log(followed) - log(allowed)


def _output_gradient(snapshot: Snapshot) -> tuple[Float[Array, "samples outputs"], Float[Array, ""]]:
    """g, and the part of its norm that rounding of the outputs may make up."""
    loss, targets, outputs = snapshot.system.loss, snapshot.system.problem.y_train, snapshot.train_outputs
    doubt = _ROUNDING * (jnp.abs(outputs) + jnp.abs(targets))
    return loss.gradient(outputs, targets), jnp.linalg.norm(loss.hessian_product(outputs, targets, doubt))


def _least_followed(snapshot: Snapshot, gradient: Float[Array, "samples outputs"]) -> Float[Array, ""]:
    """A lower bound of ||P g||: with q = J^T g it is ||q||^2 / ||J q||, the part of g along J q (Cauchy and Schwarz)."""
    pulled = snapshot.tangent.vjp(gradient)
    pushed = jnp.linalg.norm(snapshot.tangent.jvp(pulled))
    return jnp.where(pushed > 0, tree_dot(pulled, pulled) / jnp.where(pushed > 0, pushed, 1.0), 0.0)


def _followed(
    snapshot: Snapshot, gradient: Float[Array, "samples outputs"], allowed: Float[Array, ""]
) -> Float[Array, ""]:
    """||P g||. For too many outputs to form a Gram matrix: 0 if J^T g is rounding, and more than `allowed` otherwise."""
    if gradient.size > DENSE_LIMIT:
        pulled = snapshot.tangent.vjp(gradient)
        norm, pushed = tree_norm(pulled), jnp.linalg.norm(snapshot.tangent.jvp(pulled))
        # ||J q|| / ||q|| is a lower bound of ||J||, so a J^T g that passes this test is rounding.
        return jnp.where(norm**2 <= _ROUNDING * jnp.linalg.norm(gradient) * pushed, 0.0, 2 * allowed)
    return jnp.linalg.norm(ResolvedRange.of(snapshot.gram).project(gradient))
