"""The error of the whole run, carried along beside the solution: what single steps add, and what the flow makes of it."""

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

# A displacement smaller than this beside the weights is scaled up before the flow is looked at there: of the difference of two
# velocities enough digits should be left.
_LEAST_DISPLACEMENT = 1e-6
# How many times what the steps have added, relative to the weights, an error may have grown to before nothing is believed of
# it: on the way from a saddle of small weights one of first order says little of what becomes of it.
_MOST_AMPLIFIED = 10.0
# Of the weights: up to it what is carried may be the rounding of steps that make no other error, as of linear models.
_NO_ERROR = 1e-9
# By how many factors of e an error may grow in a step of an explicit solver before nothing is believed of it.
_MOST_GROWTH = 1.0


class StepErrors(eqx.Module):
    """**Attributes:** `local`: the solver's estimate of the error of one step, like the state (weights, integrals);
    `carried`: of the whole run behind it, like the weights; `report`: on the step, of a solver that gives one."""

    local: PyTree
    carried: PyTree
    report: StepReport | None = None


class LastStep(eqx.Module):
    """The last accepted step. **Attributes:** `start`, `end`: flow times; `inside`: what the solver's interpolation takes."""

    start: Float[Array, ""]
    end: Float[Array, ""]
    inside: dict[str, Any]

    def at(self, time: Float[Array, ""], solver: diffrax.AbstractAdaptiveSolver) -> PyTree:
        """The state at a `time` within it, a step of `solver`."""
        return solver.interpolation_cls(t0=self.start, t1=self.end, **self.inside).evaluate(time)


class CarriedState(eqx.Module):
    """What an `ErrorCarryingSolver` carries from one accepted step to the next.

    **Attributes:** `inner`: the inner solver's state; `error`: of the weights, like them; `added`: the sum of what the steps
    have added to it, each relative to the weights then; `loss`: L; `last`: the step.
    """

    inner: PyTree
    error: PyTree
    added: Float[Array, ""]
    loss: Float[Array, ""]
    last: LastStep


class ErrorCarryingSolver(AbstractWrappingSolver):
    """`inner`, which also carries an estimate of the error of the weights from step to step.

    The error behind a step is what the flow makes of the error before it, plus the step's own, as `inner` estimates it. To
    first order that is the difference to the solution by the embedded method, of lower order, for the price of one velocity
    a step; since `inner` goes on from the solution of the higher order, it is an upper estimate. Derived in docs/theory.md,
    The error of a run.

    Its `y_error` is a `StepErrors`. **Arguments:** `inner`: any adaptive Diffrax solver for the state (weights, integrals).
    """

    inner: diffrax.AbstractAdaptiveSolver

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> CarriedState:
        """The inner solver's state, no error, the loss, and a step of no length and no meaning."""
        inner = self.inner.init(terms, t0, t1, y0, args)
        shapes = eqx.filter_eval_shape(self.inner.step, terms, t0, t1, y0, args, inner, False)[2]
        inside = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        error = jax.tree.map(jnp.zeros_like, y0[0])
        return CarriedState(inner, error, jnp.zeros(()), _loss(args.system, y0[0]), LastStep(t0, t0, inside))

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[PyTree, StepErrors, dict[str, Any], CarriedState, diffrax.RESULTS]:
        """One step of `inner`, and the error behind it."""
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
        # What is no number says that the step failed; the local error says so, too. What has grown too much is not known.
        size, known = tree_norm(carried), tree_norm(y1[0])
        added = before.added + tree_norm(local[0]) / jnp.where(known > 0, known, 1.0)
        finite = jnp.isfinite(size) & (size <= jnp.maximum(_MOST_AMPLIFIED * added, _NO_ERROR) * known)
        carried = jax.tree.map(lambda leaf: jnp.where(finite, leaf, jnp.inf), carried)
        behind = CarriedState(state, carried, added, _loss(system, y1[0]), LastStep(t0, t1, dense_info))
        report = self.inner.report(state) if isinstance(self.inner, AbstractReportingSolver) else None
        return y1, StepErrors(local, carried, report), dense_info, behind, result


def _loss(system: System, weights: PyTree) -> Float[Array, ""]:
    # By the tangent, which the controller computes, too, and of the system that it sees: once in the compiled program.
    return system.loss.value(system.tangent(weights).outputs, system.problem.y_train)


def _decay(system: System, loss: Float[Array, ""], after: PyTree) -> Float[Array, ""]:
    """By what factor, at most 1, the residual falls in a step from `loss` to the weights `after`."""
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
    """What a small displacement `error` has become after flow time `length`, without a linearisation.

    exp(h g) e + h phi_1(-h rho) (D - g e) with D = F(w + e) - F(w), g >= 0 the rate at which e grows along itself, and rho that
    at which the rest changes on the outputs: exact where e grows or decays at a single rate, as along Gauss-Newton flow; and
    where h is long for the fastest modes that decay, they do not grow, as by Euler's method they would.

    Infinite where h g > 1. Weights that grow by so much in a step and show in no output are bounded by nothing else, and what
    the embedded method says of such a step is not the size of its error. Where no error is behind the step, its own, `local`,
    shows how fast one grows.
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
