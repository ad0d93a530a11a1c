"""The mean-field limit: how fast networks of M particles approach the one of infinitely many."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._core import ConfigError, require_non_negative, require_positive_int, stream
from ..models import MeanFieldNetwork
from ..simulate import simulate_once
from ._base import AbstractTheorem, Conclusion, Hypotheses
from ._certificate import Curves
from ._check import Check
from ._claim import Claim, equality
from ._evidence import Evidence
from ._studies import PowerLaw, fit_power_law, smoothness_check
from ._wasserstein import sliced_wasserstein2

_FEWEST_WIDTHS, _FEWEST_SEEDS = 3, 2
_MOST_INPUTS = 64
_LOOSER = 10.0
# Half-widths of the intervals at which -1/2 is told from -1/4 and from -1, and -1 from -1/2 and from -3/2.
_FLUCTUATION_RESOLUTION, _BIAS_RESOLUTION = 0.2, 0.4


def _takes_own_mobility(evidence: Evidence, model: Any) -> bool:
    """Whether the flow's mobility is the model's own at every width: for these particles, and for each of them twice."""
    twice = MeanFieldNetwork.from_arrays(
        np.repeat(model.hidden_weight, 2, axis=0),
        None if model.hidden_bias is None else np.repeat(model.hidden_bias, 2),
        np.repeat(model.output_weight, 2, axis=0),
        model.activation,
        model.output_scale,
        model.output_exponent,
    )
    flow, problem = evidence.trajectory.flow, evidence.trajectory.problem
    for network in (model, twice):
        system = flow.system(problem, network)
        gain = flow.dynamics.gain(system)
        if gain is None or gain.constant != system.mobility:
            return False
    return True


@dataclasses.dataclass(frozen=True)
class MeanFieldLimit(AbstractTheorem):
    """Theorem M1 to M3 of docs/theorems/mean_field.md.

    Networks of M i.i.d. particles under gradient flow in the particle metric: observables at a time T fluctuate over the
    initial particles by O(M^(-1/2)), their means differ from the limit M -> infinity by O(1/M), and the sliced Wasserstein
    distance between the particles of two independent networks falls like M^(-1/2), up to a logarithm.

    The networks are drawn anew, as `MeanFieldNetwork` draws them. Those of one seed are blocks of the same particles, two or
    more of each width that together make one of the next: the mean of an observable over such blocks minus its value for the
    union has the bias of the smaller width without its fluctuations (antithetic coupling), which shows a bias that is
    otherwise lost among them.

    Sources: Chizat and Bach 2018 (arXiv 1805.09545) for the limit; Chassagneux, Szpruch, Tse 2022 (arXiv 1901.02556) for the
    bias; Bobkov and Ledoux 2019 (Memoirs AMS 1259) for Wasserstein distances in one dimension.

    **Arguments:**

    - `widths`: at least three, increasing, each a multiple of the one before.
    - `seeds` >= 2: draws of the particles. The cost is that of (2 or more) * seeds runs of each width.
    - `end_time`: T; None for the run's end.
    - `init_scale`, `output_init_scale`: of the particles drawn; None for the root mean squares of the run's own initial u, b
      and v.
    - `rtol`: tolerance of the runs. `num_directions` of the sliced distance. `key`: a JAX key; None for `jax.random.key(0)`.

    **Raises:** `ConfigError` for other numbers.
    """

    name: ClassVar[str] = "mean-field limit"
    statement: ClassVar[str] = "observables of M particles: fluctuations O(M^(-1/2)), bias O(1/M)"
    reference: ClassVar[str] = "docs/theorems/mean_field.md, Theorem M1 to M3; Chizat and Bach 2018"
    own_runs: ClassVar[bool] = True
    about: ClassVar[Literal["run", "start", "parts"]] = "parts"

    widths: tuple[int, ...] = (50, 100, 200, 400, 800)
    seeds: int = 32
    end_time: float | None = None
    init_scale: float | None = None
    output_init_scale: float | None = None
    rtol: float = 1e-6
    num_directions: int = 64
    key: Any = None

    def __post_init__(self):
        if len(self.widths) < _FEWEST_WIDTHS:
            raise ConfigError(
                f"widths = {self.widths!r}; a slope with an error needs at least {_FEWEST_WIDTHS} of them."
            )
        for width in self.widths:
            require_positive_int(ConfigError, width=width)
        for smaller, larger in itertools.pairwise(self.widths):
            if larger <= smaller or larger % smaller:
                raise ConfigError(
                    f"widths = {self.widths!r}; expected them to increase, each a multiple of the one before, such as "
                    f"(50, 100, 200): {larger} particles are to be split into networks of {smaller}."
                )
        require_positive_int(ConfigError, seeds=self.seeds, num_directions=self.num_directions)
        if self.seeds < _FEWEST_SEEDS or self.num_directions < 2:
            raise ConfigError(
                f"seeds = {self.seeds!r}, num_directions = {self.num_directions!r}; expected at least 2 of each."
            )
        if self.end_time is not None and not (math.isfinite(self.end_time) and self.end_time > 0):
            raise ConfigError(f"end_time = {self.end_time!r}; expected a positive, finite flow time, or None.")
        scales = {"init_scale": self.init_scale, "output_init_scale": self.output_init_scale}
        require_non_negative(ConfigError, **{name: scale for name, scale in scales.items() if scale is not None})
        if not 0 < self.rtol < 1:
            raise ConfigError(f"rtol = {self.rtol!r}; expected a number between 0 and 1, such as 1e-6.")

    def hypotheses(self, evidence: Evidence) -> Hypotheses:
        """Mean-field scaling, the particle metric, a smooth velocity; the i.i.d. start is the certificate's own doing."""
        trajectory = evidence.trajectory
        model = trajectory.initial_model
        checks = [
            Check.fact("the run is a flow in continuous time", evidence.is_continuous),
            Check.fact(
                "the run has a length", len(evidence.recorded_times) > 1 and float(evidence.recorded_times[-1]) > 0
            ),
            Check.fact("the model is a MeanFieldNetwork", isinstance(model, MeanFieldNetwork)),
        ]
        if isinstance(model, MeanFieldNetwork):
            checks.append(Check("output exponent (f = alpha/M^s sum)", model.output_exponent, "==", 1.0))
        gain = evidence.gain
        mobility = None if gain is None else gain.constant
        remark = "for other flows nothing is proved here" if mobility is None else ""
        checks += [
            Check.fact("the flow is gradient flow", mobility is not None, remark),
            Check.fact(
                "the mobility is M, the particle metric's",
                mobility is not None and isinstance(model, MeanFieldNetwork) and _takes_own_mobility(evidence, model),
                'mobility="model"',
            ),
            smoothness_check(trajectory.problem, model, trajectory.flow),
        ]
        if not all(check.met for check in checks):
            return Hypotheses(tuple(checks))
        name = "the projected law of a particle at T is sampled as fast as a log-concave one (Theorem M3)"
        checks.append(Check(name, 1.0, "==", 1.0, rigorous=False, remark="assumed, not proved, for T > 0"))
        hidden, output = self._scales(model)
        constants = {
            "end time T": self._end(evidence),
            "init_scale" + ("" if self.init_scale is not None else " (rms of the run's start)"): hidden,
            "output_init_scale" + ("" if self.output_init_scale is not None else " (rms of the run's start)"): output,
            "seeds": float(self.seeds),
        }
        return Hypotheses(tuple(checks), constants)

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """Slopes over the widths, with intervals from the seeds."""
        study = _Study(self, evidence)
        levels = [study.level(k) for k in range(len(self.widths))]
        rng = np.random.default_rng(np.asarray(jr.key_data(stream(self._key(), "bootstrap"))))
        widths = np.asarray(self.widths, dtype=float)

        def fit(take: Callable[[Observed], np.ndarray], statistic: Callable[[np.ndarray], float]) -> PowerLaw:
            noise = np.asarray([level.integration_noise(take) for level in levels])
            shift = -0.5 * np.log1p(-_second_order_parts(levels, take))
            return fit_power_law(widths, [take(level.values) for level in levels], statistic, noise, shift, rng)

        fluctuations = {
            "train loss": fit(_loss, _spread),
            "outputs": fit(_outputs_of, _spread),
            "second moments": fit(_moments, _relative_spread),
        }
        nothing = np.zeros(len(widths))
        squares = [level.squared_distances for level in levels]
        distance = fit_power_law(widths, squares, _root_mean, nothing, nothing, rng)
        smaller, pairs = widths[:-1], list(itertools.pairwise(levels))
        # E of the difference is b/M - b/(r M) if the bias is b/M.
        differences = [_coupled(a, b, _loss)[:, 0] / (1 - a.width / b.width) for a, b in pairs]
        noise = np.asarray(
            [
                (a.loss_noise + b.loss_noise) / max(abs(float(np.mean(difference))), 1e-300)
                for (a, b), difference in zip(pairs, differences, strict=True)
            ]
        )
        shift = np.log1p(_second_order_parts(levels, _loss)[:-1])
        bias = fit_power_law(smaller, differences, _mean, noise, shift, rng)
        claims = (
            *(_slope_claim(f"fluctuation of the {what} ~ M^-1/2", law) for what, law in fluctuations.items()),
            _slope_claim("bias of the train loss ~ M^-1", bias, -1.0, _BIAS_RESOLUTION),
            _distance_claim(distance, widths),
        )
        constants: dict[str, float] = {}
        for what, law in fluctuations.items():
            constants[f"fluctuation of the {what}, times M^1/2, at M = {self.widths[-1]}"] = float(
                law.values[-1] * math.sqrt(self.widths[-1])
            )
        constants[f"bias of the train loss, times M, at M = {self.widths[-2]}"] = float(bias.values[-1] * smaller[-1])
        constants[f"sliced Wasserstein-2 distance at M = {self.widths[-1]}"] = float(distance.values[-1])
        constants[f"mean train loss at M = {self.widths[-1]}"] = float(np.mean(levels[-1].values.loss))
        panels = [*((f"std of the {what}", widths, law) for what, law in fluctuations.items())]
        panels += [("bias of the train loss", smaller, bias), ("sliced W2 distance", widths, distance)]
        return Conclusion(claims, constants, tuple(_curves(*panel) for panel in panels))

    def _key(self) -> Any:
        return jr.key(0) if self.key is None else self.key

    def _end(self, evidence: Evidence) -> float:
        return float(evidence.recorded_times[-1]) if self.end_time is None else self.end_time

    def _scales(self, model: MeanFieldNetwork) -> tuple[float, float]:
        parts = [model.hidden_weight] if model.hidden_bias is None else [model.hidden_weight, model.hidden_bias]
        hidden = _rms(np.concatenate([np.asarray(part).ravel() for part in parts]))
        output = _rms(np.asarray(model.output_weight))
        return (
            hidden if self.init_scale is None else self.init_scale,
            output if self.output_init_scale is None else self.output_init_scale,
        )


@dataclasses.dataclass(frozen=True)
class Observed:
    """Observables of networks at T.

    **Attributes:** arrays over seeds and blocks: `loss` (S, r); `outputs` (S, r, n) at up to 64 test (or training) inputs;
    `moments` (S, r, D), the means over particles of the squared coordinates of (u, b, v).
    """

    loss: np.ndarray
    outputs: np.ndarray
    moments: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Level:
    """One width. **Attributes:** `values`; `loose`: of the first seed alone, its first block, at a looser tolerance, shapes
    (1, 1, ...); `squared_distances` (S,): SW_2^2 between the first two blocks."""

    width: int
    values: Observed
    loose: Observed
    squared_distances: np.ndarray

    def integration_noise(self, take: Callable[[Observed], np.ndarray]) -> float:
        """The error of the integration over the fluctuation, as the looser run shows it."""
        difference = take(self.loose)[0, 0] - take(self.values)[0, 0]
        return _rms(difference) / max(_spread(take(self.values)), 1e-300)

    @property
    def loss_noise(self) -> float:
        return float(np.abs(self.loose.loss[0, 0] - self.values.loss[0, 0]))


class _Study:
    """The runs. Those of one seed share their particles: 2 of the largest width, and blocks of them for the others."""

    def __init__(self, theorem: MeanFieldLimit, evidence: Evidence):
        self.theorem, self.trajectory, self.end = theorem, evidence.trajectory, theorem._end(evidence)
        self.key = theorem._key()
        self.scales = theorem._scales(evidence.trajectory.initial_model)
        problem = evidence.trajectory.problem
        self.inputs = (problem.x_train if problem.x_test is None else problem.x_test)[:_MOST_INPUTS]
        self.particles = [self._draw(seed) for seed in range(theorem.seeds)]

    def level(self, index: int) -> _Level:
        """All runs of one width."""
        widths = self.theorem.widths
        width = widths[index]
        blocks = 2 if index + 1 == len(widths) else widths[index + 1] // width
        ends = [[self._run(p, block, width) for block in range(blocks)] for p in self.particles]
        loose = self._run(self.particles[0], 0, width, _LOOSER * self.theorem.rtol)
        directions = stream(self.key, "directions")
        distances = [
            sliced_wasserstein2(_cloud(row[0][0]), _cloud(row[1][0]), self.theorem.num_directions, key=directions).value
            ** 2
            for row in ends
        ]
        return _Level(width, self._observed(ends), self._observed([[loose]]), np.asarray(distances))

    def _draw(self, seed: int) -> MeanFieldNetwork:
        base = self.trajectory.initial_model
        return MeanFieldNetwork(
            base.hidden_weight.shape[1],
            2 * self.theorem.widths[-1],
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
            rtol=self.theorem.rtol if rtol is None else rtol,
        )
        return run.model, float(run.data["train_loss"].to_numpy()[-1])

    def _observed(self, ends: list[list[tuple[MeanFieldNetwork, float]]]) -> Observed:
        values = [[observe(model, loss, self.inputs) for model, loss in row] for row in ends]
        return Observed(*(np.asarray([[v[i] for v in row] for row in values]) for i in range(3)))


def observe(model: MeanFieldNetwork, loss: float, inputs: jax.Array) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, outputs at the inputs (n C,), and second moments of the particles' coordinates (D,)."""
    outputs = np.asarray(_outputs(model, inputs)).ravel()
    return loss, outputs, np.mean(_cloud(model) ** 2, axis=0)


@jax.jit
def _outputs(model: Any, inputs: jax.Array) -> jax.Array:
    return jax.vmap(model)(inputs)


def _cloud(model: MeanFieldNetwork) -> np.ndarray:
    """The particles (u, b, v) as points, (M, D)."""
    parts = [model.hidden_weight, model.output_weight]
    if model.hidden_bias is not None:
        parts.insert(1, model.hidden_bias[:, None])
    return np.asarray(jnp.concatenate(parts, axis=1))


def _loss(observed: Observed) -> np.ndarray:
    return observed.loss[..., None]


def _outputs_of(observed: Observed) -> np.ndarray:
    return observed.outputs


def _moments(observed: Observed) -> np.ndarray:
    return observed.moments


def _coupled(level: _Level, union: _Level, take: Callable[[Observed], np.ndarray]) -> np.ndarray:
    """The mean of an observable over a seed's blocks minus its value for their union, (S, n)."""
    return np.mean(take(level.values), axis=1) - take(union.values)[:, 0]


def _second_order_parts(levels: list[_Level], take: Callable[[Observed], np.ndarray]) -> np.ndarray:
    """The part of the variance, (k,), that is of second order in the particles' empirical measure; O(1/M).

    The first order cancels in the coupled difference d of r blocks and their union, and the second order's variance is that of
    d times r^2/(r - 1) (Lemma 3 of docs/theorems/mean_field.md). For the largest width it is scaled from the one before.
    """
    parts = []
    for level, union in itertools.pairwise(levels):
        ratio = union.width / level.width
        second = ratio**2 / (ratio - 1) * np.mean(np.var(_coupled(level, union, take), axis=0, ddof=1))
        parts.append(second / max(_spread(take(level.values)) ** 2, 1e-300))
    parts.append(parts[-1] * levels[-2].width / levels[-1].width)
    return np.minimum(np.asarray(parts), 1 - 1e-3)


def _pooled_variances(samples: np.ndarray) -> np.ndarray:
    """Variances over seeds and blocks, (n,), of an array (S, r, n)."""
    return np.var(samples.reshape(-1, samples.shape[-1]), axis=0, ddof=1)


def _spread(samples: np.ndarray) -> float:
    """The root mean square over components of their standard deviations."""
    return float(np.sqrt(np.mean(_pooled_variances(samples))))


def _relative_spread(samples: np.ndarray) -> float:
    """The same for components of different units: each over its mean."""
    means = np.mean(samples.reshape(-1, samples.shape[-1]), axis=0)
    present = means > 0
    return float(np.sqrt(np.mean(_pooled_variances(samples)[present] / means[present] ** 2)))


def _root_mean(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples)))


def _mean(samples: np.ndarray) -> float:
    return float(np.mean(samples))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _slope_claim(
    name: str, law: PowerLaw, expected: float = -0.5, resolution: float = _FLUCTUATION_RESOLUTION
) -> Claim:
    where = f"({law.slope:.3f} +- {law.half_width:.3f}, 99%, finite widths included)"
    return equality(name, law.slope, expected, law.half_width, law.wide_half_width, resolution, where)


def _distance_claim(law: PowerLaw, widths: np.ndarray) -> Claim:
    """Between the slopes of M^(-1/2) and of (log M/M)^(1/2) over these widths."""
    logs = np.log(np.maximum(widths[[0, -1]], 2.0))
    highest = -0.5 + 0.5 * math.log(logs[1] / logs[0]) / (logs[1] - logs[0])
    slack = min(law.slope + 0.5, highest - law.slope)
    bound = -0.5 if law.slope + 0.5 < highest - law.slope else highest
    return Claim(
        "distance of two networks' particles ~ M^-1/2, up to (log M)^1/2",
        law.slope,
        bound,
        slack,
        law.half_width,
        law.wide_half_width,
        _FLUCTUATION_RESOLUTION,
        f"({law.slope:.3f} +- {law.half_width:.3f}, 99%, finite widths included)",
    )


def _curves(label: str, widths: np.ndarray, law: PowerLaw) -> Curves:
    return Curves(widths, "width M", label, np.abs(law.values), upper=law.constant * widths**law.slope)
