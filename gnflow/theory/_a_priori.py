"""The a priori theorem: from constants of the start alone, the flow converges at a rate known in advance."""

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from .._core import tree_norm, tree_subtract
from ._accuracy import DISTANCE_RESOLUTION, ELSEWHERE, ELSEWHERE_AT_WORST, EPSILON, LOSS_RESOLUTION, TINY
from ._base import AbstractTheorem, Conclusion, Hypotheses, Stage, in_stages
from ._claim import Check, Claim, Error, at_times, compare, compare_along
from ._continuity import continuity
from ._description import is_like
from ._evidence import Evidence
from ._feature_gram import GramSpectrum, start_spectrum
from ._hypotheses import (
    LARGEST_FLOAT,
    accurate_solves,
    continuous_time,
    increasing_gain,
    scale_of_metric,
    strong_convexity,
)
from ._lipschitz import LipschitzBound, consistent_radius
from ._reruns import matching

# The relative difference of two path lengths that two programs integrate.
_PATH_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Regime:
    """What Theorem T gives for a flow as long as the smallest singular value of J is at least `singular_value`.

    **Attributes:**

    - `singular_value`: the bound of the smallest singular value of J.
    - `rate`: r.
    - `speed`: a number with ||w'|| <= speed ||g||.
    - `ratio`: a number with eps <= ratio sigma_min (0 for gradient flow).
    """

    singular_value: float
    rate: float
    speed: float
    ratio: float


@dataclasses.dataclass(frozen=True)
class APriori(AbstractTheorem):
    """Theorem T of docs/theorems/a_priori.md: convergence of a network of finite width from constants of its start.

    It is a theorem of our own, in the form of the convergence theorem of [A] (Arbel et al. 2023, arXiv 2302.02904): a known
    rate from an invertible feature Gram matrix, here for gradient flow and other gains too.

    K is a Lipschitz constant of the Jacobian on the ball of radius R = sqrt(sigma_0)/(2K) about w_0. If the loss at the start
    is small compared with R, the flow stays in that ball for all time, and L_t - L* <= (L_0 - L*) exp(-r t) with a rate r that
    is known at the start.
    """

    name: ClassVar[str] = "a priori"
    statement: ClassVar[str] = "||w_t - w_0|| < R and L_t - L* <= (L_0 - L*) exp(-r t), with R and r known at the start"
    reference: ClassVar[str] = "docs/theorems/a_priori.md, Theorem T (our own, at finite width)"

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """Strong convexity, an invertible Gram matrix, a constant metric, bounded damping, a smooth Jacobian, a small loss."""
        gain = evidence.gain
        convex, numbers = strong_convexity(evidence)
        checks = [continuous_time(evidence), increasing_gain(evidence), convex]
        if gain is not None:
            constant = gain.metric.is_constant(evidence.system.loss) and _metric_scale(evidence) is not None
            checks.append(Check.fact("the metric H is constant", constant, remark=type(gain.metric).__name__))
        yield *checks, numbers
        spectrum = start_spectrum(evidence)
        remark = "error of forming A and of its eigendecomposition; subtracted from sigma_0 in what follows"
        yield (
            Check("sigma_0 = sigma_min(A_0) > 0", spectrum.smallest, ">", 0.0, error=spectrum.error, remark=remark),
            {"sigma_0": spectrum.smallest, "error of sigma_0": spectrum.error},
        )
        yield from self._on_ball(evidence, spectrum, numbers["lambda"])

    def _on_ball(self, evidence: Evidence, spectrum: GramSpectrum, smoothness: float) -> Iterator[Stage]:
        """The hypotheses that need sigma_0 > 0: constants that are bounds on the ball, and the loss against its radius."""
        start = math.sqrt(spectrum.smallest - spectrum.error)
        lipschitz = consistent_radius(evidence.system, evidence.start, start)
        value, radius, rigorous = lipschitz.value, lipschitz.radius, lipschitz.rigorous
        name = "K < inf (Jacobian Lipschitz on the ball)"
        yield (
            Check(name, value, "<=", LARGEST_FLOAT, rigorous=rigorous, remark=lipschitz.method),
            *(() if rigorous else (continuity(evidence),)),  # an estimate may have missed a jump
            {"K": value, "R": radius, **lipschitz.constants},
        )
        regime = _regime(evidence, spectrum, lipschitz, radius)
        excess = float(evidence.system.train_loss(evidence.start)) - evidence.minimum
        length = path_bound(regime, smoothness, excess)
        remark = "helped by a wider network, a larger output scale or a smaller loss at the start"
        name = "speed * sqrt(2 lambda (L_0 - L*)) * 2/r < R"
        constants = {
            "L_0 - L*": excess,
            "smallest singular value of J on the ball": regime.singular_value,
            "a (eps <= a sigma_min)": regime.ratio,
            "speed/||g||": regime.speed,
            "r": regime.rate,
            "length of the path, bound": length,
            "length of the path/R": length / radius if radius > 0 else math.inf,
        }
        if length < radius:
            # Theorem T again, on the smaller ball that the flow is now known to stay in (Corollary T').
            smaller = _regime(evidence, spectrum, lipschitz, length)
            bound = path_bound(smaller, smoothness, excess)
            constants |= {"r on the smaller ball": smaller.rate, "length of the path, bound on the smaller ball": bound}
        small = Check(name, length, "<", radius, rigorous=rigorous, remark=remark)
        yield *_flow_checks(evidence, spectrum, regime, start), small, constants

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The loss at every measured time against both rates; the last weights against the ball and the length of the path."""
        rate, sharper = hypotheses.constants["r"], hypotheses.constants["r on the smaller ball"]
        length = hypotheses.constants["length of the path, bound on the smaller ball"]
        claims = [*_decay("L_t - L* <= (L_0 - L*) exp(-r t)", evidence, rate)]
        claims += _decay("the same with r on the smaller ball", evidence, sharper)
        claims += _movement(evidence, hypotheses.constants["R"], length, sharper)
        bound = np.exp(evidence.log_excess[0] - rate * evidence.times)
        return Conclusion(claims=tuple(claims), curves=(evidence.loss_curve(None, bound),))


def path_bound(regime: Regime, smoothness: float, excess: float) -> float:
    """int ||w'|| <= speed sqrt(2 lambda (L_0 - L*)) 2/r."""
    return regime.speed * math.sqrt(2 * smoothness * excess) * 2 / regime.rate if regime.rate > 0 else math.inf


def _regime(evidence: Evidence, spectrum: GramSpectrum, lipschitz: LipschitzBound, radius: float) -> Regime:
    """Rate and speed on the ball of `radius`, on which J moves by at most K radius."""
    system = evidence.system
    convexity = system.loss.strong_convexity(system.problem.num_train)
    moved = 0.0 if lipschitz.value == 0 else lipschitz.value * radius
    least = math.sqrt(spectrum.smallest - spectrum.error) - moved
    gain, scale = evidence.law, _metric_scale(evidence)
    assert scale is not None
    ratio = gain.damping.largest_ratio(least**2)
    if not math.isfinite(ratio):
        return Regime(least, 0.0, math.inf, ratio)
    slowest, _ = gain.bounds(jnp.asarray(least**2), jnp.asarray(least**2), ratio * least**2, (scale, scale))
    largest = math.sqrt(spectrum.largest + spectrum.error) + moved
    return Regime(least, 2 * convexity * float(slowest), gain.speed(least, largest, scale), ratio)


def _metric_scale(evidence: Evidence) -> float | None:
    """h for a metric H = h I that is the same at all outputs, so that mu_H = lambda_H = h. None for another metric."""
    return scale_of_metric(evidence, evidence.system.problem.y_train)


def _flow_checks(evidence: Evidence, spectrum: GramSpectrum, regime: Regime, start: float) -> list[Check]:
    """The hypotheses about the flow itself: damping below a sigma_min, and a direction that reaches every mode."""
    gain = evidence.law
    if not gain.is_truncated:
        return [Check("m > 0 (mobility)", regime.rate, ">", 0.0, remark="the rate 2 mu m sigma_min is positive")]
    remark = f"{type(gain.damping).__name__}, sigma_min >= {regime.singular_value**2:.4g} there"
    checks = [Check("eps <= a sigma_min on the ball, a < inf", regime.ratio, "<=", LARGEST_FLOAT, remark=remark)]
    if not evidence.flow.solves_iteratively:
        # All modes are kept as long as the smallest is above the rank cut-off of the largest.
        largest = math.sqrt(spectrum.largest + spectrum.error) + start - regime.singular_value
        cutoff = evidence.system.problem.y_train.size * EPSILON * largest**2
        name = "every mode is solved for (sigma_min above the rank cut-off on the ball)"
        checks.append(Check(name, regime.singular_value**2, ">", cutoff))
    return checks + accurate_solves(evidence)


def _decay(name: str, evidence: Evidence, rate: float) -> list[Claim]:
    """log(L_0 - L*) - log(L_t - L*) >= r t at every measured time except the first."""
    logs = evidence.log_excess
    # A loss at its infimum has an infinite logarithm, which shows nothing.
    places = [index for index in range(1, len(logs)) if np.isfinite(logs[index])]
    if not places:
        return []
    fallen, bound = logs[0] - logs[places], rate * evidence.times[places]
    error, where = evidence.accuracy.loss[places].ordered(), at_times(evidence.times[places])
    return [compare(name, fallen, ">=", bound, error, LOSS_RESOLUTION * bound, where)]


def _movement(evidence: Evidence, radius: float, length: float, rate: float) -> list[Claim]:
    """||w_T - w_0|| <= R, and <= the bound of the path's length until T; and the path's length itself, if it was recorded."""
    accuracy = evidence.accuracy
    error = accuracy.distance()
    distance = float(tree_norm(tree_subtract(evidence.flow_end, evidence.start)))
    reached = length * -np.expm1(-rate * evidence.times / 2)
    (end,) = at_times(evidence.times[-1:])
    claims = [
        compare(name, distance, "<=", bound, error, DISTANCE_RESOLUTION * bound, end)
        for name, bound in (
            ("||w_T - w_0|| <= R", radius),
            ("||w_T - w_0|| <= bound of the path up to T", float(reached[-1])),
        )
        if math.isfinite(bound)  # R = inf, of a model linear in its weights, claims nothing
    ]
    if "path_length" in evidence.flow_run.data:
        path = evidence.flow_run.data["path_length"].to_numpy()
        # A step may change the path by rtol of its length. At worst all steps do so in the same direction.
        error = error + Error(accuracy.rtol * path, 2 * accuracy.rtol * accuracy.steps * path)
        name, resolution = "int ||w'|| <= bound of the path", DISTANCE_RESOLUTION * reached
        claims.append(compare_along(name, evidence.times, path, "<=", reached, error, resolution))
        claims.append(_recorded_path(evidence))
    return claims


def _recorded_path(evidence: Evidence) -> Claim:
    """The recorded length of the path against that of the reference, relative to the whole length."""
    flow = evidence.flow_run.data["path_length"].to_numpy()
    at, whole = matching(evidence.recorded_times, evidence.times), max(flow[-1], TINY)
    off = np.abs(evidence.trajectory.data["path_length"].to_numpy() - flow[at]) / whole
    honest = np.zeros(len(off))
    if "path_length" in evidence.replicate_run.data:
        index, own = evidence.accuracy.common
        again = evidence.replicate_run.data["path_length"].to_numpy()[own]
        honest = evidence.accuracy.growing(np.abs(again - flow[index]))[at] / whole
    tolerance = ELSEWHERE * honest + _PATH_ROUNDING
    error = Error(tolerance, ELSEWHERE_AT_WORST * tolerance if is_like(evidence) else np.full(len(off), np.inf))
    name, where = "the recorded path length is that of a rerun (relative)", at_times(evidence.recorded_times)
    return compare(name, off, "==", 0.0, error, DISTANCE_RESOLUTION, where, every=True)
