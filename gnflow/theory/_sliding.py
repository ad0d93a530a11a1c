"""How the flow points on both sides of the kinks that a state reaches next: past them, or along them."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core import tree_add_scaled, tree_dot
from ..flows import AbstractFlow
from ..geometry import System

# The distance from a kink at which its two sides are evaluated, in units of the rms of all z.
_BESIDE = 1e-8
# The relative difference of z' at a state and at the arrival up to which the flow is taken to reach the kink.
_FORESEEN = 0.25


class Arrivals(eqx.Module):
    """The pairs (n, i) of a sample and a kink that the velocity at one state brings together first, the first one first.

    With z the argument of the activation in unit i on sample n, and velocities z' per unit of flow time; arrays (k,).

    **Attributes:**

    - `wait`: the flow time until z reaches the kink at the speed of the state; inf for entries beyond the last pair.
    - `samples`, `units`: the pair. Units are counted through all layers and their kinks.
    - `approach`: z' at the state.
    - `above`, `below`: z' on both sides of the kink where z arrives; nan if no weight moves z.
    - `side`: 1 if z comes from above, -1 if from below, and 0 if it is on the kink.
    - `count`: the number of pairs that arrive within the given time.
    """

    wait: Float[Array, " k"]
    samples: Int[Array, " k"]
    units: Int[Array, " k"]
    approach: Float[Array, " k"]
    above: Float[Array, " k"]
    below: Float[Array, " k"]
    side: Float[Array, " k"]
    count: Int[Array, ""]


@eqx.filter_jit
def next_arrivals(
    time: Float[Array, ""], weights: PyTree, horizon: Float[Array, ""], system: System, flow: AbstractFlow, number: int
) -> Arrivals:
    """The first `number` arrivals at kinks from a state of the flow.

    From the state the flow is taken to go on along its velocity v: z meets the kink c after the time (c - z)/z', if that is
    positive. At w + wait v, moved along grad z so that z = c +- delta, the velocity is taken again, with s' of either side.

    **Arguments:**

    - `time`, `weights`: the flow time and the trained weights of the state.
    - `horizon`: the flow time for `count`.
    - `system`, `flow`: for a model with `activations` and `pre_activations` and at least one kink.
    - `number`: the number of arrivals.
    """

    def velocity(after: Array, w: PyTree) -> PyTree:
        return flow.velocity(time + after, w, system)

    def distances(w: PyTree) -> Float[Array, "samples units"]:
        return kink_distances(system, w)

    here = velocity(jnp.zeros(()), weights)
    distance, speed = jax.jvp(distances, (weights,), (here,))
    beside = _BESIDE * jnp.sqrt(jnp.mean(distance**2))
    nearing = distance * speed < 0
    wait = jnp.where(nearing, -distance / jnp.where(nearing, speed, 1.0), jnp.where(distance == 0, 0.0, jnp.inf))
    negative, places = jax.lax.top_k(-wait.reshape(-1), min(number, wait.size))

    def sides(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        after, place = pair
        after = jnp.where(jnp.isfinite(after), after, 0.0)
        chosen = (jnp.arange(distance.size) == place).astype(distance.dtype).reshape(distance.shape)
        arrived = tree_add_scaled(weights, after, here)
        reached, pull_back = jax.vjp(distances, arrived)
        (normal,) = pull_back(chosen)
        steepness = tree_dot(normal, normal)
        moves = steepness > 0

        def side(shift: Array) -> Array:
            to_kink = (shift - jnp.sum(chosen * reached)) / jnp.where(moves, steepness, 1.0)
            w = tree_add_scaled(arrived, to_kink, normal)
            rates = jax.jvp(distances, (w,), (velocity(after, w),))[1]
            return jnp.where(moves, jnp.sum(chosen * rates), jnp.nan)

        return side(beside), side(-beside)

    above, below = jax.lax.map(sides, (-negative, places))
    samples, units = jnp.divmod(places, distance.shape[1])
    return Arrivals(
        wait=-negative,
        samples=samples,
        units=units,
        approach=speed.reshape(-1)[places],
        above=above,
        below=below,
        side=jnp.sign(distance.reshape(-1)[places]),
        count=jnp.sum(wait <= horizon),
    )


def kink_distances(system: System, weights: PyTree) -> Float[Array, "samples units"]:
    """z - c of every sample, and of every kink c of every unit."""
    model = system.model(weights)
    layers = jax.vmap(model.pre_activations)(system.problem.x_train)
    return jnp.concatenate(
        [z - kink for activation, z in zip(model.activations, layers, strict=True) for kink in activation.kinks or ()],
        axis=1,
    )


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Which arrivals stay on their kinks.

    **Attributes:**

    - `stays`: the arrivals that stay.
    - `unclear`: the arrivals for which this is open. All others pass.
    """

    stays: tuple[int, ...]
    unclear: tuple[int, ...]


def judge(arrivals: Arrivals, horizon: float) -> Judgement:
    """Which of the arrivals within the time `horizon` stay on their kinks (docs/theorems/kinks.md, How sliding is measured).

    Where z comes from, z' at the arrival must be what it is at the state, to a quarter: then the arrival is one that
    the flow comes to, and their difference is the error with which z' beyond the kink is known. z stays where that
    points back by more than the error. It passes where that points on by more, and where no weight moves it.
    """
    on_kink = arrivals.side == 0  # it is not known from which side it came, so both sides must push towards the kink
    near = np.where(arrivals.side >= 0, arrivals.above, arrivals.below)
    far = np.where(arrivals.side >= 0, arrivals.below, arrivals.above)
    error = np.where(on_kink, 0.0, np.abs(near - arrivals.approach))
    foreseen = on_kink | (error <= _FORESEEN * np.abs(arrivals.approach))
    # Beyond the kink nothing moves the unit at all: it rests there, and f' = J w' with the J of that side.
    rests = far == 0
    met = (arrivals.wait <= horizon) & ~np.isnan(near) & ~(on_kink & (near == far))
    against = np.where(on_kink, (near < 0) & (far > 0), near * far < 0)
    known = foreseen & ((np.abs(far) > error) | rests)
    return Judgement(*(tuple(np.flatnonzero(flags).tolist()) for flags in (met & known & against, met & ~known)))
