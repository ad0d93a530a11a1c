"""How far the velocity of a damped flow is from that of gradient flow on a clock of its own."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_add_scaled, tree_multiply, tree_norm
from ..geometry import SolveDiagnostics, System
from ._base import AbstractFlow

_TINY = float(jnp.finfo(jnp.float64).tiny)


def velocity_and_distance(
    flow: AbstractFlow, time: Float[Array, ""] | float, weights: PyTree, system: System
) -> tuple[PyTree, SolveDiagnostics | None]:
    """`flow.velocity_and_diagnostics`, with the distance to gradient flow in the diagnostics.

    The distance is ||J^T a - k(0) J^T g|| / ||k(0) J^T g|| for the part -J^T a of the velocity, where k is the `gain` of the
    flow: how far -J^T a is from the velocity of gradient flow with mobility k(0), which is 1/eps for Gauss-Newton flow. It
    costs one product with J^T. Derived in docs/theory.md, Damping and gradient flow.

    **Returns:** the velocity, and its diagnostics: None for a flow without a solve, without the distance for one without a
    gain.
    """
    velocity, diagnostics = flow.velocity_and_diagnostics(time, weights, system)
    dynamics = flow.dynamics
    gain = (dynamics.linearised or dynamics).gain(system)  # of the part without weight decay
    if diagnostics is None or gain is None:
        return velocity, diagnostics
    rates = dynamics.decay(weights, system)
    moved = velocity if rates is None else tree_add_scaled(velocity, 1.0, tree_multiply(rates, weights))
    mobility = gain.value(jnp.asarray(_TINY), diagnostics.damping)
    tangent = dynamics.tangent(weights, system)  # the compiler finds that the flow has computed it, too
    gradient = tangent.vjp(system.loss.gradient(tangent.outputs, system.problem.y_train))
    norm = tree_norm(gradient)
    distance = tree_norm(tree_add_scaled(gradient, 1 / mobility, moved)) / jnp.where(norm > 0, norm, 1.0)
    return velocity, dataclasses.replace(diagnostics, distance_to_gradient_flow=jnp.where(norm > 0, distance, 0.0))
