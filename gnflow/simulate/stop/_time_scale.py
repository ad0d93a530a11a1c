"""The scale of the loss and of its first decrease."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import tree_dot
from ...geometry import Snapshot


def excess_loss(snapshot: Snapshot) -> Float[Array, ""]:
    """L - L* on the training data, with L* the infimum over all outputs."""
    return snapshot.train_loss - snapshot.system.loss.minimum(snapshot.system.problem.y_train)


def loss_time_scale(snapshot: Snapshot) -> Float[Array, ""]:
    """(L - L*)/|dL/dt|, the flow time in which the loss would vanish at its present rate; 1 where it does not change."""
    gradient = jax.grad(snapshot.system.train_loss)(snapshot.weights)
    rate = jnp.abs(tree_dot(gradient, snapshot.velocity))
    return jnp.where(rate > 0, excess_loss(snapshot) / jnp.where(rate > 0, rate, 1.0), 1.0)
