"""A bound of the Jacobian's Lipschitz constant on a ball, and the largest ball on which it controls the Jacobian."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core import ConfigError, require_non_negative, stream, tree_add_scaled, tree_norm, tree_scale, tree_subtract
from ..geometry import System
from ..models import MLP, DerivativeBounds, MeanFieldNetwork
from ._hypotheses import is_linear

# For the rounding of the norms of the data, whose relative error is of the order of 1e-13.
_ROUND_UP = 1 + 1e-9
# Estimates: places in the ball, directions at each place, power iterations for each direction.
_PLACES, _DIRECTIONS, _ITERATIONS = 3, 4, 12
_BISECTIONS = 100


@dataclasses.dataclass(frozen=True)
class LipschitzBound:
    """||J_w - J_w'|| <= value ||w - w'|| in the operator norm, for w, w' in the ball of `radius` about a point.

    **Attributes:**

    - `value`: K, in outputs/weights^2.
    - `radius`: R, in weights.
    - `rigorous`: whether K is a bound, and not an estimate, which is at most the true constant.
    - `method`: how it was found.
    - `constants`: what it was computed from.
    """

    value: float
    radius: float
    rigorous: bool
    method: str
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)


def jacobian_lipschitz(system: System, weights: PyTree, radius: float) -> LipschitzBound:
    """K on the ball of `radius` about `weights`: a bound for two-layer networks and for models linear in their weights.

    For other models it is an estimate, and says so.

    Source: docs/theorems/a_priori.md, Lemma 1.

    **Raises:** `ConfigError` for a negative radius.
    """
    require_non_negative(ConfigError, radius=radius)
    family = _bound_family(system, weights)
    return estimate_jacobian_lipschitz(system, weights, radius) if family is None else family.on_ball(radius)


def consistent_radius(system: System, weights: PyTree, singular_value: float) -> LipschitzBound:
    """K with the largest R such that 2 K(R) R <= `singular_value`, the smallest one of J at `weights`.

    On that ball the smallest singular value of J stays above half of that. K grows with R, so R is found by bisection
    and rounded down. It is inf where K = 0 and 0 where K = inf.
    """
    require_non_negative(ConfigError, singular_value=singular_value)
    family = _bound_family(system, weights)
    if family is None:
        return _consistent_estimate(system, weights, singular_value)
    at_point = family.on_ball(0.0)
    if at_point.value == 0:
        return family.on_ball(math.inf)
    low, high = 0.0, singular_value / (2 * at_point.value)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        # The bracket is negligibly wide long before; `low` is on the right side always.
        low, high = (middle, high) if 2 * family.on_ball(middle).value * middle <= singular_value else (low, middle)
    return family.on_ball(low)


@dataclasses.dataclass(frozen=True)
class _BoundFamily:
    """K(R) = (gamma + sqrt(gamma^2 + 4 beta^2))/2 with gamma = curvature (largest + R) where the output layer moves,
    else curvature times largest (Lemma 1)."""

    beta: float
    curvature: float
    largest: float
    output_moves: bool
    method: str
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def on_ball(self, radius: float) -> LipschitzBound:
        """K on the ball of this radius."""
        reach = self.largest + (radius if self.output_moves else 0.0)
        gamma = 0.0 if self.curvature == 0 or (self.largest == 0 and not self.output_moves) else self.curvature * reach
        if math.isinf(self.curvature) and gamma != 0:
            gamma = math.inf  # also on the ball of radius 0 where 0 * inf would be nan
        value = _ROUND_UP * (gamma + math.hypot(gamma, 2 * self.beta)) / 2
        constants = self.constants if self.method == _LINEAR else {**self.constants, "max_i |v_i| on the ball": reach}
        return LipschitzBound(value, radius, True, self.method, constants)


_LINEAR = "the model is linear in the weights that move"


def _bound_family(system: System, weights: PyTree) -> _BoundFamily | None:
    """The constants for Lemma 1; None for models that it does not cover."""
    structure = system.structure
    if is_linear(system, weights):
        return _BoundFamily(0.0, 0.0, 0.0, False, _LINEAR)
    if not isinstance(structure, MeanFieldNetwork | MLP):
        return None
    bounds = structure.activation.derivative_bounds
    if bounds is None:  # of a user's activation
        return None
    if isinstance(structure, MeanFieldNetwork):
        return _two_layer_family(system, weights, bounds)
    if math.isinf(bounds.second):
        return _BoundFamily(math.inf, 0.0, 0.0, True, "the activation's derivative jumps: no finite constant")
    return None


def _two_layer_family(system: System, weights: PyTree, bounds: DerivativeBounds) -> _BoundFamily:
    network: MeanFieldNetwork = system.model(weights)
    x = np.asarray(system.problem.x_train)
    # Only weights that move take part: where the bias alone moves, say, x~_n is 1.
    parts = [x] if weights.hidden_weight is not None else []
    parts += [np.ones((len(x), 1))] if weights.hidden_bias is not None else []
    inputs = np.concatenate(parts, axis=1)
    lengths = np.linalg.norm(inputs, axis=1)
    norm, weighted_norm = float(np.linalg.norm(inputs, 2)), float(np.linalg.norm(lengths[:, None] * inputs, 2))
    factor = network.output_factor
    output_moves = weights.output_weight is not None
    largest = float(np.linalg.norm(np.asarray(network.output_weight), axis=1).max())
    smooth = math.isfinite(bounds.second)
    return _BoundFamily(
        beta=factor * bounds.first * norm if output_moves else 0.0,
        curvature=factor * bounds.second * weighted_norm if smooth else math.inf,
        largest=largest,
        output_moves=output_moves,
        method="Lemma 1, two-layer network" if smooth else "the activation's derivative jumps: no finite constant",
        constants={
            "output factor c": factor,
            "sup |s'|": bounds.first,
            "sup |s''|": bounds.second,
            "||X~||": norm,
            "||diag(||x~_n||) X~||": weighted_norm,
        },
    )


def estimate_jacobian_lipschitz(system: System, weights: PyTree, radius: float) -> LipschitzBound:
    """An estimate of K from below, for any model: the largest ||J_w - J_w'||/||w - w'|| found at a few pairs of the ball.

    From each of a few places a random direction is followed; power iteration on J_w - J_w' gives the displacement it stretches
    most, which is the next direction to follow, because second derivatives are symmetric (alternating maximisation).
    """
    require_non_negative(ConfigError, radius=radius)
    reach = radius if radius > 0 else 1e-6 * max(float(tree_norm(weights)), 1.0)
    found = 0.0
    for place in range(_PLACES):
        key = stream(jax.random.key(place), "Lipschitz constant")
        base, step = weights, reach
        if place > 0:
            base, step = (
                tree_add_scaled(weights, reach / 2, _random_direction(stream(key, "place"), weights)),
                reach / 2,
            )
        direction = start = _random_direction(stream(key, "direction"), weights)
        for _ in range(_DIRECTIONS):
            stretch, direction = _largest_stretch(system, base, direction, start, jnp.asarray(step))
            found = max(found, float(stretch))
    return LipschitzBound(found, radius, False, "estimate: power iteration at sampled pairs of the ball")


def _consistent_estimate(system: System, weights: PyTree, singular_value: float) -> LipschitzBound:
    """An estimate of K in two rounds: K near the point gives a radius, which is too large if K grows, and K on that ball gives
    a smaller one."""
    near = 1e-3 * max(float(tree_norm(weights)), 1.0)
    value = estimate_jacobian_lipschitz(system, weights, near).value
    if value == 0:
        return LipschitzBound(0.0, math.inf, False, "estimate: J does not change at sampled pairs")
    wide = estimate_jacobian_lipschitz(system, weights, singular_value / (2 * value))
    value = max(value, wide.value)
    return LipschitzBound(value, singular_value / (2 * value), False, wide.method)


def _random_direction(key: PRNGKeyArray, like: PyTree) -> PyTree:
    """A unit vector, uniform in direction."""
    leaves, tree = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return _unit(jax.tree.unflatten(tree, drawn))


def _unit(tree: PyTree) -> PyTree:
    norm = tree_norm(tree)
    return tree_scale(jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1.0), 0.0), tree)


@eqx.filter_jit
def _largest_stretch(
    system: System, weights: PyTree, direction: PyTree, start: PyTree, step: Float[Array, ""]
) -> tuple[Float[Array, ""], PyTree]:
    """||J_w - J_w'||/step for w' = w + step direction, and the displacement that it stretches most, by power iteration."""
    here, there = system.tangent(weights), system.tangent(tree_add_scaled(weights, step, direction))

    def change(displacement: PyTree) -> Array:
        return (there.jvp(displacement) - here.jvp(displacement)) / step

    def iteration(_: Any, displacement: PyTree) -> PyTree:
        image = change(displacement)
        return _unit(tree_subtract(there.vjp(image), here.vjp(image)))

    # A mixture of both: the direction itself may lie in the kernel of the change.
    top = jax.lax.fori_loop(0, _ITERATIONS, iteration, _unit(tree_add_scaled(direction, 1.0, start)))
    return jnp.linalg.norm(change(top)), top
