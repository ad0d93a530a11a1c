"""Whether a run that seems to stand still will move again: from a saddle that the modes do not resolve, or at a later time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import jit_for_states, tree_dot, tree_norm, tree_scale
from ...geometry import ResolvedRange, System

DENSE_LIMIT = 4096  # most outputs for which a Gram matrix is formed

_NOISE = 1e3 * float(jnp.finfo(jnp.float64).eps)  # relative to ||J|| ||g||; a smaller J^T g is taken for rounding
SOON = 1e-3  # e-foldings in the time that has passed; an unstable direction with fewer is not waited for
_LATER_TIMES = 256  # times spaced evenly in the logarithm, and as many spaced evenly
_FIRST_LATER = 1e-3  # distance of the first later time, relative to the time that has passed


@jit_for_states
def leaves_saddle(weights: PyTree, system: System, flow: Any, time: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether the velocity grows along the part of it that the modes above the rank cut-off do not explain.

    Let P be the projection on these modes and q = J^T (g - P g). The share ||P g||/||g|| does not see q, because eigenvalues
    of J J^T below 1e-16 of the largest are rounding. But q itself is known to 1e-16 of ||J|| ||g||. If the loss is concave
    along q and the flow moves along it, w' = -c q + ..., then q grows at the rate c |kappa| with kappa = q^T L'' q/||q||^2. At
    a minimum kappa >= 0.
    """
    loss, targets, tangent = system.loss, system.problem.y_train, system.tangent(weights)
    gradient = loss.gradient(tangent.outputs, targets)
    seen = ResolvedRange.of(tangent.gram())
    # The fast modes are projected out twice. What rounding of g leaves of them the first time is larger than a velocity as
    # small as the one that is looked for.
    pulled = seen.beyond(tangent.vjp(gradient - seen.project(gradient)), tangent)
    size = tree_norm(pulled)
    direction = tree_scale(1 / jnp.where(size > 0, size, 1.0), pulled)
    _, bent = jax.jvp(jax.grad(system.train_loss), (weights,), (direction,))
    speed = -tree_dot(direction, flow.velocity(time, weights, system)) / jnp.where(size > 0, size, 1.0)
    growth = -tree_dot(direction, bent) * speed
    largest = jnp.sqrt(jnp.maximum(seen.eigenvalues[-1], 0.0))
    return (
        (size > _NOISE * largest * jnp.linalg.norm(gradient))
        & (growth * time > jnp.where(time > 0, SOON, -1.0))
        & (growth > 0)
    )


@jit_for_states
def moves_later(
    weights: PyTree, system: System, flow: Any, time: Float[Array, ""], horizon: Float[Array, ""], rounding: float
) -> Bool[Array, ""]:
    """Whether the velocity at these weights is more than rounding at one of 512 later times up to `horizon`."""

    def moves(at: Float[Array, ""]) -> Bool[Array, ""]:
        return tree_norm(flow.velocity(at, weights, system)) * at > rounding * tree_norm(weights)

    return at_later_times(moves, time, horizon)


def at_later_times(
    moves: Callable[[Float[Array, ""]], Bool[Array, ""]], time: Float[Array, ""], horizon: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether `moves` is True at one of 512 times from `time` up to `horizon`."""
    least = jnp.maximum(_FIRST_LATER * time, jnp.finfo(jnp.float64).tiny)
    span = jnp.maximum(horizon - time, least)
    least = jnp.maximum(least, 1e-18 * span)
    times = time + least * (span / least) ** jnp.linspace(0.0, 1.0, _LATER_TIMES)
    times = jnp.concatenate([times, time + span * jnp.linspace(0.0, 1.0, _LATER_TIMES)])
    return jnp.any(jax.lax.map(moves, times))
