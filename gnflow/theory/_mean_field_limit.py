"""The mean-field limit: how fast networks of M particles approach the network of infinitely many."""

import dataclasses
import itertools
import math
from typing import Any, ClassVar, Literal

import jax.random as jr
import numpy as np

from .._core import ConfigError, require_integer, require_non_negative, require_number, require_positive_int, stream
from ..models import MeanFieldNetwork
from ._base import AbstractTheorem, Conclusion, Hypotheses, in_stages
from ._claim import Check, Claim, compare
from ._curves import Curves
from ._evidence import Evidence
from ._hypotheses import continuous_time, has_length, smooth_velocity
from ._mean_field_study import (
    LOSS,
    MOMENTS,
    OUTPUTS,
    Study,
    coupled,
    mean,
    relative_spread,
    rms,
    root_mean,
    second_order_parts,
    spread,
)
from ._power_law import PowerLaw, fit_power_law

_FEWEST_WIDTHS = 3
# The statistic by which each observable fluctuates over the seeds.
_FLUCTUATIONS = {LOSS: spread, OUTPUTS: spread, MOMENTS: relative_spread}
# Half-widths of intervals that distinguish -1/2 from -1/4 and -1, and -1 from -1/2 and -3/2.
_FLUCTUATION_RESOLUTION, _BIAS_RESOLUTION = 0.2, 0.4


def _takes_own_mobility(evidence: Evidence, model: Any) -> bool:
    """Whether the flow uses the model's own mobility at every width, checked for these particles and for each of them twice."""
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

    Networks of M i.i.d. particles under gradient flow in the particle metric: observables at a time T fluctuate over
    the initial particles by O(M^(-1/2)), their means differ from the limit M -> infinity by O(1/M), and the sliced
    Wasserstein distance between the particles of two independent networks falls like M^(-1/2), up to a logarithm.

    The networks are drawn anew, as `MeanFieldNetwork` draws them. Those of one seed are blocks of the same particles,
    two or more of each width that together make one of the next: the mean of an observable over such blocks minus its
    value for the union has the bias of the smaller width without its fluctuations (antithetic coupling), which shows a
    bias that is otherwise lost among them.

    Sources: Chizat and Bach 2018 (arXiv 1805.09545) for the limit; Chassagneux, Szpruch, Tse 2022 (arXiv 1901.02556)
    for the bias; Bobkov and Ledoux 2019 (Memoirs AMS 1259) for Wasserstein distances in one dimension.

    **Arguments:**

    - `widths`: at least three increasing widths, each a multiple of the one before.
    - `seeds`: the number of draws of the particles, at least 2. The cost is that of (2 or more) * seeds runs of each width.
    - `end_time`: T; None for the end of the run.
    - `init_scale`, `output_init_scale`: the scales of the particles that are drawn. None uses the root mean squares of the
      run's own initial u, b and v.
    - `rtol`: the tolerance of the runs.
    - `num_directions`: the number of directions of the sliced distance.
    - `key`: a JAX key; None for `jax.random.key(0)`.

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
            raise ConfigError(f"widths = {self.widths!r}; a slope with an error needs at least {_FEWEST_WIDTHS}.")
        require_positive_int(ConfigError, width=self.widths[0])
        for smaller, larger in itertools.pairwise(self.widths):
            require_positive_int(ConfigError, width=larger)
            if larger <= smaller or larger % smaller:
                raise ConfigError(
                    f"widths = {self.widths!r}; expected them to increase, each a multiple of the one before, such as "
                    f"(50, 100, 200): {larger} particles are to be split into networks of {smaller}."
                )
        for name in ("seeds", "num_directions"):
            require_integer(ConfigError, name, getattr(self, name), least=2)
        if self.end_time is not None:
            require_number(ConfigError, "end_time", self.end_time, above=0.0, remedy="Or None, for the run's end.")
        scales = {"init_scale": self.init_scale, "output_init_scale": self.output_init_scale}
        require_non_negative(ConfigError, **{name: scale for name, scale in scales.items() if scale is not None})
        require_number(ConfigError, "rtol", self.rtol, above=0.0, below=1.0)

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """Mean-field scaling, the particle metric, a smooth velocity. The certificate itself makes the i.i.d. starts."""
        run, gain = evidence.trajectory, evidence.gain
        model = run.initial_model
        particles = isinstance(model, MeanFieldNetwork)
        checks = [Check.fact("the model is a MeanFieldNetwork", particles)]
        if particles:
            checks.append(Check("output exponent (f = alpha/M^s sum)", model.output_exponent, "==", 1.0))
        mobility = None if gain is None else gain.constant
        remark = "for other flows nothing is proved here" if mobility is None else ""
        own = mobility is not None and particles and _takes_own_mobility(evidence, model)
        yield (
            continuous_time(evidence),
            has_length(evidence),
            *checks,
            Check.fact("the flow is gradient flow", mobility is not None, remark),
            Check.fact("the mobility is M, the particle metric's", own, 'mobility="model"'),
            smooth_velocity(run.problem, model, run.flow),
        )
        name = "the projected law of a particle at T is sampled as fast as a log-concave one (Theorem M3)"
        hidden, output = self._scales(model)
        own = " (rms of the run's start)"
        yield (
            Check.fact(name, True, "assumed, not proved, for T > 0", rigorous=False),
            {
                "end time T": self._end(evidence),
                "init_scale" + ("" if self.init_scale is not None else own): hidden,
                "output_init_scale" + ("" if self.output_init_scale is not None else own): output,
                "seeds": float(self.seeds),
            },
        )

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """Slopes over the widths, with intervals from the seeds."""
        study = self._study(evidence)
        levels = [study.level(k) for k in range(len(self.widths))]
        rng = np.random.default_rng(np.asarray(jr.key_data(stream(study.key, "bootstrap"))))
        widths = np.asarray(self.widths, dtype=float)

        def fit(name: str) -> PowerLaw:
            values, statistic = [level.values[name] for level in levels], _FLUCTUATIONS[name]
            noise = [level.integration_error(name) / max(spread(level.values[name]), 1e-300) for level in levels]
            shift = -0.5 * np.log1p(-second_order_parts(levels, name))
            return fit_power_law(widths, values, statistic, np.asarray(noise), shift, rng)

        fluctuations = {name: fit(name) for name in _FLUCTUATIONS}
        nothing = np.zeros(len(widths))
        squares = [level.squared_distances for level in levels]
        distance = fit_power_law(widths, squares, root_mean, nothing, nothing, rng)
        smaller, pairs = widths[:-1], list(itertools.pairwise(levels))
        # E of the difference is b/M - b/(r M) if the bias is b/M.
        differences = [coupled(a, b, LOSS)[:, 0] / (1 - a.width / b.width) for a, b in pairs]
        sizes = [max(abs(float(np.mean(difference))), 1e-300) for difference in differences]
        errors = [a.integration_error(LOSS) + b.integration_error(LOSS) for a, b in pairs]
        noise = np.asarray(errors) / sizes
        shift = np.log1p(second_order_parts(levels, LOSS)[:-1])
        bias = fit_power_law(smaller, differences, mean, noise, shift, rng)
        claims = (
            *(_slope_claim(f"fluctuation of the {what} ~ M^-1/2", law) for what, law in fluctuations.items()),
            _slope_claim("bias of the train loss ~ M^-1", bias, -1.0, _BIAS_RESOLUTION),
            _distance_claim(distance, widths),
        )
        constants = {
            f"fluctuation of the {what}, times M^1/2, at M = {self.widths[-1]}": float(
                law.values[-1] * math.sqrt(self.widths[-1])
            )
            for what, law in fluctuations.items()
        }
        constants[f"bias of the train loss, times M, at M = {self.widths[-2]}"] = float(bias.values[-1] * smaller[-1])
        constants[f"sliced Wasserstein-2 distance at M = {self.widths[-1]}"] = float(distance.values[-1])
        constants[f"mean train loss at M = {self.widths[-1]}"] = float(np.mean(levels[-1].values[LOSS]))
        panels = [*((f"std of the {what}", widths, law) for what, law in fluctuations.items())]
        panels += [("bias of the train loss", smaller, bias), ("sliced W2 distance", widths, distance)]
        return Conclusion(claims, constants, tuple(_curves(*panel) for panel in panels))

    def _study(self, evidence: Evidence) -> Study:
        return Study(
            trajectory=evidence.trajectory,
            widths=self.widths,
            seeds=self.seeds,
            end=self._end(evidence),
            scales=self._scales(evidence.trajectory.initial_model),
            rtol=self.rtol,
            num_directions=self.num_directions,
            key=jr.key(0) if self.key is None else self.key,
        )

    def _end(self, evidence: Evidence) -> float:
        return float(evidence.recorded_times[-1]) if self.end_time is None else self.end_time

    def _scales(self, model: MeanFieldNetwork) -> tuple[float, float]:
        parts = [model.hidden_weight] if model.hidden_bias is None else [model.hidden_weight, model.hidden_bias]
        hidden = rms(np.concatenate([np.asarray(part).ravel() for part in parts]))
        output = rms(np.asarray(model.output_weight))
        return (
            hidden if self.init_scale is None else self.init_scale,
            output if self.output_init_scale is None else self.output_init_scale,
        )


def _slope_claim(
    name: str, law: PowerLaw, expected: float = -0.5, resolution: float = _FLUCTUATION_RESOLUTION
) -> Claim:
    return compare(name, law.slope, "==", expected, law.error, resolution, law.words)


def _distance_claim(law: PowerLaw, widths: np.ndarray) -> Claim:
    """The claim that the slope lies between those of M^(-1/2) and of (log M/M)^(1/2). The nearer one decides."""
    logs = np.log(np.maximum(widths[[0, -1]], 2.0))
    highest = -0.5 + 0.5 * math.log(logs[1] / logs[0]) / (logs[1] - logs[0])
    relation, bound = (">=", -0.5) if law.slope + 0.5 < highest - law.slope else ("<=", highest)
    name = "distance of two networks' particles ~ M^-1/2, up to (log M)^1/2"
    return compare(name, law.slope, relation, bound, law.error, _FLUCTUATION_RESOLUTION, law.words)


def _curves(label: str, widths: np.ndarray, law: PowerLaw) -> Curves:
    return Curves(widths, "width M", label, np.abs(law.values), upper=law.constant * widths**law.slope)
