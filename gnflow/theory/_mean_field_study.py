"""Runs of networks with increasing numbers of particles from shared draws, and statistics of their last states."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._core import stream
from ..models import MeanFieldNetwork
from ..simulate import Trajectory, simulate_once
from ._accuracy import LOOSER
from ._wasserstein import sliced_wasserstein2

_MOST_INPUTS = 64
_TINY = 1e-300


# The names of the observables of a network at T.
LOSS, OUTPUTS, MOMENTS = "train loss", "outputs", "second moments"


@dataclasses.dataclass(frozen=True)
class Level:
    """The runs of one width.

    **Attributes:**

    - `width`: the number of particles.
    - `values`: each observable over seeds and blocks (S, r, n); see `observe`.
    - `loose`: the same for the first block of the first seed, at a looser tolerance (1, 1, n).
    - `squared_distances`: SW_2^2 between the first two blocks (S,).
    """

    width: int
    values: Mapping[str, np.ndarray]
    loose: Mapping[str, np.ndarray]
    squared_distances: np.ndarray

    def integration_error(self, name: str) -> float:
        """The rms error of the integration over the components, from the looser run."""
        return rms(self.loose[name][0, 0] - self.values[name][0, 0])


@dataclasses.dataclass(frozen=True)
class Study:
    """The runs of all widths. Those of one seed share their particles: two blocks of the largest width, cut for the others.

    **Attributes:**

    - `trajectory`: the run with the problem, the network and the flow.
    - `widths`, `seeds`, `end`: the numbers of particles, the number of draws, and T.
    - `scales`: the scales of the hidden and the output weights that are drawn.
    - `rtol`: the tolerance of the runs.
    - `num_directions`: the number of directions of the sliced distance.
    - `key`: a JAX key.
    """

    trajectory: Trajectory
    widths: tuple[int, ...]
    seeds: int
    end: float
    scales: tuple[float, float]
    rtol: float
    num_directions: int
    key: Any

    @functools.cached_property
    def particles(self) -> list[MeanFieldNetwork]:
        """The particles of each seed, twice as many as the largest width."""
        return [self._draw(seed) for seed in range(self.seeds)]

    def level(self, index: int) -> Level:
        """All runs of one width."""
        widths, width = self.widths, self.widths[index]
        blocks = 2 if index + 1 == len(widths) else widths[index + 1] // width
        ends = [[self._run(p, block, width) for block in range(blocks)] for p in self.particles]
        loose = self._run(self.particles[0], 0, width, LOOSER * self.rtol)
        directions = stream(self.key, "directions")
        pairs = [(cloud(first), cloud(second)) for ((first, _), (second, _), *_) in ends]
        distances = [sliced_wasserstein2(*pair, self.num_directions, key=directions).value for pair in pairs]
        return Level(width, self._observed(ends), self._observed([[loose]]), np.asarray(distances) ** 2)

    def _draw(self, seed: int) -> MeanFieldNetwork:
        base = self.trajectory.initial_model
        return MeanFieldNetwork(
            base.hidden_weight.shape[1],
            2 * self.widths[-1],
            base.output_weight.shape[1],
            base.activation,
            *self.scales,
            bias=base.hidden_bias is not None,
            output_scale=base.output_scale,
            key=jr.fold_in(stream(self.key, "particles"), seed),
        )

    def _run(
        self, particles: MeanFieldNetwork, block: int, width: int, rtol: float | None = None
    ) -> tuple[MeanFieldNetwork, float]:
        """The network of one block of particles at T, and its loss."""
        part = slice(block * width, (block + 1) * width)
        model = MeanFieldNetwork.from_arrays(
            particles.hidden_weight[part],
            None if particles.hidden_bias is None else particles.hidden_bias[part],
            particles.output_weight[part],
            particles.activation,
            particles.output_scale,
        )
        run = simulate_once(
            self.trajectory.problem,
            model,
            self.trajectory.flow,
            t1=self.end,
            stop=None,
            saveat=[self.end],
            rtol=self.rtol if rtol is None else rtol,
        )
        return run.model, float(run.data["train_loss"].to_numpy()[-1])

    def _observed(self, ends: list[list[tuple[MeanFieldNetwork, float]]]) -> dict[str, np.ndarray]:
        problem = self.trajectory.problem
        inputs = (problem.x_train if problem.x_test is None else problem.x_test)[:_MOST_INPUTS]
        found = [[observe(model, loss, inputs) for model, loss in row] for row in ends]
        return {name: np.asarray([[one[name] for one in row] for row in found]) for name in (LOSS, OUTPUTS, MOMENTS)}


def observe(model: MeanFieldNetwork, loss: float, inputs: jax.Array) -> dict[str, np.ndarray]:
    """The loss (1,), outputs at up to 64 test (or training) inputs (n C,), and the means over particles of the squared
    coordinates of (u, b, v), (D,)."""
    outputs = np.asarray(_outputs(model, inputs)).ravel()
    return {LOSS: np.array([loss]), OUTPUTS: outputs, MOMENTS: np.mean(cloud(model) ** 2, axis=0)}


@jax.jit
def _outputs(model: Any, inputs: jax.Array) -> jax.Array:
    return jax.vmap(model)(inputs)


def cloud(model: MeanFieldNetwork) -> np.ndarray:
    """The particles (u, b, v) as points, (M, D)."""
    parts = [model.hidden_weight, model.output_weight]
    if model.hidden_bias is not None:
        parts.insert(1, model.hidden_bias[:, None])
    return np.asarray(jnp.concatenate(parts, axis=1))


def coupled(level: Level, union: Level, name: str) -> np.ndarray:
    """The mean of an observable over a seed's blocks minus its value for their union, (S, n)."""
    return np.mean(level.values[name], axis=1) - union.values[name][:, 0]


def second_order_parts(levels: list[Level], name: str) -> np.ndarray:
    """The part of the variance, (k,), that is of second order in the particles' empirical measure; O(1/M).

    The first order cancels in the coupled difference d of r blocks and their union, and the second order's variance is that of
    d times r^2/(r - 1) (Lemma 3 of docs/theorems/mean_field.md). For the largest width it is scaled from the one before.
    """
    parts = []
    for level, union in itertools.pairwise(levels):
        ratio = union.width / level.width
        second = ratio**2 / (ratio - 1) * np.mean(np.var(coupled(level, union, name), axis=0, ddof=1))
        parts.append(second / max(spread(level.values[name]) ** 2, _TINY))
    parts.append(parts[-1] * levels[-2].width / levels[-1].width)
    return np.minimum(np.asarray(parts), 1 - 1e-3)


def _pooled_variances(samples: np.ndarray) -> np.ndarray:
    """Variances over seeds and blocks, (n,), of an array (S, r, n)."""
    return np.var(samples.reshape(-1, samples.shape[-1]), axis=0, ddof=1)


def spread(samples: np.ndarray) -> float:
    """The root mean square over components of their standard deviations."""
    return float(np.sqrt(np.mean(_pooled_variances(samples))))


def relative_spread(samples: np.ndarray) -> float:
    """The same for components of different units, each divided by its mean."""
    means = np.mean(samples.reshape(-1, samples.shape[-1]), axis=0)
    present = means > 0
    return float(np.sqrt(np.mean(_pooled_variances(samples)[present] / means[present] ** 2)))


def root_mean(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples)))


def mean(samples: np.ndarray) -> float:
    return float(np.mean(samples))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
