"""Whether a flow with weight decay rests, that is, whether the decay and -J^T a balance."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..._core import jit_for_states, tree_add_scaled, tree_dot, tree_multiply, tree_norm, tree_subtract
from ...geometry import System
from ._escape import SOON, at_later_times

_DISPLACEMENT = 1e-6  # relative to the weights, so that the difference of two velocities keeps enough digits


def imbalance(velocity: PyTree, weights: PyTree, decay: PyTree, time: Float[Array, ""] | float) -> Float[Array, ""]:
    """||w'|| / (||w' + D w|| + ||D w||): the size of w' relative to its two parts -J^T a and -D w, which cancel at rest.

    With s = ||w'||/||D w||, one rate of decay, a convex loss and a model that is linear in its weights, the state of rest is
    within s of the weights (docs/theory.md, Weight decay). For weights that do not decay nothing cancels. Their imbalance is
    how far they would move in the time that the run has taken, relative to all weights. The result is the larger of the two.
    """
    pulled = tree_multiply(decay, weights)
    size = tree_norm(tree_add_scaled(velocity, 1.0, pulled)) + tree_norm(pulled)
    share = jnp.where(size > 0, tree_norm(velocity) / jnp.where(size > 0, size, 1.0), 0.0)
    free = jax.tree.map(lambda rate, leaf: jnp.where(rate > 0, 0.0, leaf), decay, velocity)
    moved, scale = tree_norm(free) * time, tree_norm(weights)
    return jnp.maximum(share, jnp.where(moved > 0, moved / jnp.where(scale > 0, scale, moved), 0.0))


@jit_for_states
def leaves_balance(
    weights: PyTree, system: System, flow: Any, time: Float[Array, ""], horizon: Float[Array, ""], allowed: Any
) -> Bool[Array, ""]:
    """Whether the run will move again.

    It will if the velocity grows along itself by more than 1e-3 in the time that has passed, or if the imbalance at the present
    weights exceeds `allowed` at one of 512 later times up to `horizon`.
    """
    velocity = flow.velocity(time, weights, system)
    # A difference of velocities in the place of a derivative, because not every velocity has one.
    size = tree_norm(velocity)
    length = _DISPLACEMENT * tree_norm(weights) / jnp.where(size > 0, size, 1.0)
    moved = flow.velocity(time, tree_add_scaled(weights, length, velocity), system)
    bent = tree_dot(velocity, tree_subtract(moved, velocity)) / jnp.where(length > 0, length, 1.0)
    growth = bent / jnp.where(size > 0, size, 1.0) ** 2
    decay = flow.dynamics.decay(weights, system)

    def moves(at: Float[Array, ""]) -> Bool[Array, ""]:
        # `imbalance` gets the present time for all of them: only the change of the velocity with time is asked for.
        return imbalance(flow.velocity(at, weights, system), weights, decay, time) > allowed

    return ((growth > 0) & (growth * time > jnp.where(time > 0, SOON, -1.0))) | at_later_times(moves, time, horizon)
