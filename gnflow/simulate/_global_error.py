"""The error of the whole run, carried along with the solution: each step adds its own, and the flow carries the sum on."""

import functools
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_add_scaled, tree_dot, tree_norm, tree_scale, tree_subtract
from ..geometry import AbstractTangent, System
from ..solvers import (
    AbstractErrorCarryingSolver,
    AbstractReportingSolver,
    AbstractWrappingSolver,
    StepReport,
    phi_functions,
)
from ._controller import residual_of

# A displacement below this share of the weights is scaled up before the velocity is evaluated there, so that the difference of
# two velocities keeps enough digits.
_LEAST_DISPLACEMENT = 1e-6
# An error that has grown to more than this times what the steps have added (relative to the weights) counts as unknown: on the
# way from a saddle of small weights a propagation to first order says little.
_MOST_AMPLIFIED = 10.0
# An error up to this share of the weights is always accepted: it may be the rounding of steps without any other error, as for
# linear models.
_NO_ERROR = 1e-9
# The exponent by which an error may grow in one step of an explicit solver before it counts as unknown.
_MOST_GROWTH = 1.0


class StepErrors(eqx.Module):
    """The estimated errors after a step.

    **Attributes:**

    - `local`: the solver's estimate of the error of the step, a tree like the state (weights, integrals).
    - `carried`: the error of the whole run up to the end of the step, a tree like the weights.
    - `report`: the report on the step, for a solver that gives one.
    """

    local: PyTree
    carried: PyTree
    report: StepReport | None = None


class LastStep(eqx.Module):
    """The last accepted step.

    **Attributes:**

    - `start`, `end`: the flow times at which it begins and ends.
    - `inside`: the arguments of the solver's interpolation.
    """

    start: Float[Array, ""]
    end: Float[Array, ""]
    inside: dict[str, Any]

    def at(self, time: Float[Array, ""], solver: diffrax.AbstractAdaptiveSolver) -> PyTree:
        """The state at a `time` within this step of `solver`."""
        return solver.interpolation_cls(t0=self.start, t1=self.end, **self.inside).evaluate(time)


class CarriedState(eqx.Module):
    """What an `ErrorCarryingSolver` carries from one accepted step to the next.

    **Attributes:**

    - `inner`: the state of the inner solver.
    - `error`: the error of the weights, a tree like them.
    - `added`: the sum of the errors that the steps have added, each relative to the weights at that time.
    - `loss`: L.
    - `last`: the last accepted step.
    """

    inner: PyTree
    error: PyTree
    added: Float[Array, ""]
    loss: Float[Array, ""]
    last: LastStep


class ErrorCarryingSolver(AbstractWrappingSolver):
    """The solver `inner`, extended to carry an estimate of the error of the weights from step to step.

    The error after a step is the error before it, carried on by the flow, plus the step's own error as `inner` estimates it.
    To first order this is the difference to the solution by the embedded method, which has the lower order. It costs one
    velocity per step. Since `inner` continues with the solution of the higher order, it is an upper estimate. Derived in
    docs/theory.md, The error of a run.

    The `y_error` of a step is a `StepErrors`.

    **Arguments:**

    - `inner`: any adaptive Diffrax solver for the state (weights, integrals).
    """

    inner: diffrax.AbstractAdaptiveSolver

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> CarriedState:
        """The state of the inner solver, the error 0, the loss, and a placeholder of length 0 for the last step."""
        inner = self.inner.init(terms, t0, t1, y0, args)
        shapes = eqx.filter_eval_shape(self.inner.step, terms, t0, t1, y0, args, inner, False)[2]
        inside = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        error = jax.tree.map(jnp.zeros_like, y0[0])
        return CarriedState(inner, error, jnp.zeros(()), _loss(args.system, y0[0]), LastStep(t0, t0, inside))

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[PyTree, StepErrors, dict[str, Any], CarriedState, diffrax.RESULTS]:
        """One step of `inner`, and the error after it."""
        before: CarriedState = solver_state
        state, error, loss = before.inner, before.error, before.loss
        length = t1 - t0
        system: System = args.system
        if isinstance(self.inner, AbstractErrorCarryingSolver):
            decay = functools.partial(_decay, system, loss)
            stepped, moved = self.inner.step_with_error(terms, t0, t1, y0, args, state, made_jump, error, decay)
            y1, local, dense_info, state, result = stepped
        else:
            y1, local, dense_info, state, result = self.inner.step(terms, t0, t1, y0, args, state, made_jump)
            assert local is not None
            ends = self.inner.last_velocity(state) if isinstance(self.inner, AbstractReportingSolver) else None
            moved = _carry_explicitly(args, t1, y1[0], None if ends is None else ends[0], length, error, local[0])
        carried = tree_add_scaled(moved, 1.0, local[0])
        # nan means that the step failed, which the local error shows, too. An error that has grown too much is not known, and
        # becomes infinite.
        size, known = tree_norm(carried), tree_norm(y1[0])
        added = before.added + tree_norm(local[0]) / jnp.where(known > 0, known, 1.0)
        finite = jnp.isfinite(size) & (size <= jnp.maximum(_MOST_AMPLIFIED * added, _NO_ERROR) * known)
        carried = jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.inf), carried)
        behind = CarriedState(state, carried, added, _loss(system, y1[0]), LastStep(t0, t1, dense_info))
        report = self.inner.report(state) if isinstance(self.inner, AbstractReportingSolver) else None
        return y1, StepErrors(local, carried, report), dense_info, behind, result


def _loss(system: System, weights: PyTree) -> Float[Array, ""]:
    # The controller computes the same tangent of the same system, so the compiled program evaluates it only once.
    return system.loss.value(system.tangent(weights).outputs, system.problem.y_train)


def _decay(system: System, loss: Float[Array, ""], after: PyTree) -> Float[Array, ""]:
    """The factor, at most 1, by which the residual falls in a step from `loss` to the weights `after`."""
    first, last = residual_of(loss, system), residual_of(_loss(system, after), system)
    falls = (last > 0) & (last < first)
    return jnp.where(falls, last / jnp.where(falls, first, 1.0), 1.0)


def _carry_explicitly(
    args: Any,
    time: Any,
    weights: PyTree,
    velocity: PyTree | None,
    length: Float[Array, ""],
    error: PyTree,
    local: PyTree,
) -> PyTree:
    """A small displacement e = `error` of the weights after flow time h = `length`, from two velocities alone.

    It is exp(h g) e + h phi_1(-h rho) (D - g e) with D = F(w + e) - F(w), where g >= 0 is the rate at which e grows along
    itself, and rho the rate at which the rest changes on the outputs. This is exact if e grows or decays at a single rate, as
    along Gauss-Newton flow. If h is long for the fastest modes that decay, they stay bounded, while Euler's method would let
    them grow.

    The result is infinite if h g > 1. Nothing else bounds weights that grow so much in a step without any effect on the
    outputs, and the embedded method does not show the size of such an error. If `error` is zero, the step's own error `local`
    shows how fast errors grow.

    **Arguments:**

    - `time`, `weights`: at the end of the step.
    - `velocity`: the velocity there, or None to compute it.
    """
    system, flow = args.system, args.measurement.flow
    if velocity is None:
        velocity = flow.velocity(time, weights, system)
    begins = tree_norm(error) == 0
    error = jax.tree.map(lambda behind, own: jnp.where(begins, own, behind), error, local)
    size = tree_norm(error)
    least = _LEAST_DISPLACEMENT * tree_norm(weights)
    scale = jnp.where(size > 0, jnp.maximum(1.0, least / jnp.where(size > 0, size, 1.0)), 1.0)
    point = tree_add_scaled(weights, scale, error)
    change = tree_scale(1 / scale, tree_subtract(flow.velocity(time, point, system), velocity))
    growth = jnp.maximum(tree_dot(error, change) / jnp.where(size > 0, size, 1.0) ** 2, 0.0)
    rest = tree_add_scaled(change, -growth, error)
    tangent: AbstractTangent = system.tangent(weights)
    size_seen = jnp.linalg.norm(tangent.jvp(error))
    folds = length * jnp.linalg.norm(tangent.jvp(rest)) / jnp.where(size_seen > 0, size_seen, 1.0)
    carried = tree_scale(jnp.exp(length * growth), error)
    carried = tree_add_scaled(carried, length * phi_functions(-folds, 1)[1], rest)
    known = jnp.where(length * growth > _MOST_GROWTH, jnp.inf, jnp.where(begins, 0.0, 1.0))
    return tree_scale(known, carried)
