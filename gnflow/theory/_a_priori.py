"""The a priori theorem: from constants of the start alone, the flow converges at a rate known in advance."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from .._core import tree_norm, tree_subtract
from ..flows import AbstractGain
from ..losses import ScaledIdentity
from ._base import AbstractTheorem, Conclusion, Hypotheses
from ._certificate import Curves
from ._check import Check
from ._claim import Claim, worst_claim
from ._continuity import continuity
from ._description import is_like
from ._evidence import Evidence
from ._feature_gram import GramSpectrum, start_spectrum
from ._integration_error import num_steps, weight_step_error
from ._lipschitz import LipschitzBound, consistent_radius
from ._reruns import matching
from ._solve_accuracy import solve_accuracy

_EPSILON = float(np.finfo(np.float64).eps)
_LARGEST = float(np.finfo(np.float64).max)  # a threshold for "finite": inf - inf would be undecided
# What agreement must be known to: of the logarithm that the loss has fallen by, as in the sandwich; and of a distance.
_LOSS_RESOLUTION, _DISTANCE_RESOLUTION = 0.05, 0.02


@dataclasses.dataclass(frozen=True)
class Regime:
    """What Theorem T says of a flow as long as the smallest singular value of J is at least `singular_value`.

    **Attributes:** `rate`: r; `speed`: ||w'|| <= speed ||g||; `ratio`: eps <= ratio sigma_min (0 for gradient flow).
    """

    singular_value: float
    rate: float
    speed: float
    ratio: float


@dataclasses.dataclass(frozen=True)
class APriori(AbstractTheorem):
    """Theorem T of docs/theorems/a_priori.md, the finite-width form of [A] (arXiv 2302.02904), Theorem 1, for both flows.

    K is a Lipschitz constant of the Jacobian on the ball of radius R = sqrt(sigma_0)/(2K) about w_0. If the loss of the start
    is small against R, then the flow stays in that ball for all time and L_t - L* <= (L_0 - L*) exp(-r t), with r known at the
    start.
    """

    name: ClassVar[str] = "a priori"
    statement: ClassVar[str] = "||w_t - w_0|| < R and L_t - L* <= (L_0 - L*) exp(-r t), with R and r known at the start"
    reference: ClassVar[str] = "docs/theorems/a_priori.md, Theorem T; Arbel et al. 2023 (arXiv 2302.02904), Theorem 1"

    def hypotheses(self, evidence: Evidence) -> Hypotheses:
        """Strong convexity, an invertible Gram matrix, a constant metric, bounded damping, a smooth Jacobian, a small loss."""
        gain, system = evidence.gain, evidence.system
        loss, count = system.loss, system.problem.num_train
        convexity, smoothness = loss.strong_convexity(count), loss.smoothness(count)
        checks = [
            Check.fact("the run is a flow in continuous time", evidence.is_continuous),
            Check.fact(
                "the flow has a gain that increases (gradient, Gauss-Newton, spectral, dual with the quadratic model)",
                gain is not None and gain.is_increasing,
            ),
            Check("mu > 0 (strong convexity)", convexity, ">", 0.0, remark=type(loss).__name__),
        ]
        if gain is not None:
            constant = gain.metric.is_constant(loss) and _metric_scale(evidence, gain) is not None
            checks.append(Check.fact("the metric H is constant", constant, remark=type(gain.metric).__name__))
        constants = {"mu": convexity, "lambda": smoothness}
        if not all(check.met for check in checks):
            return Hypotheses(tuple(checks), constants)
        spectrum = start_spectrum(evidence)
        checks.append(
            Check(
                "sigma_0 = sigma_min(A_0) > 0",
                spectrum.smallest,
                ">",
                0.0,
                error=spectrum.error,
                remark="error of forming A and of its eigendecomposition; subtracted from sigma_0 in what follows",
            )
        )
        constants |= {"sigma_0": spectrum.smallest, "error of sigma_0": spectrum.error}
        if not checks[-1].met:
            return Hypotheses(tuple(checks), constants)
        return self._on_ball(evidence, spectrum, checks, constants)

    def _on_ball(
        self, evidence: Evidence, spectrum: GramSpectrum, checks: list[Check], constants: dict[str, float]
    ) -> Hypotheses:
        """The hypotheses that take sigma_0 > 0: constants that are bounds on the ball, and the loss against its radius."""
        start = math.sqrt(spectrum.smallest - spectrum.error)
        lipschitz = consistent_radius(evidence.system, evidence.start, start)
        value, radius = lipschitz.value, lipschitz.radius
        checks.append(
            Check(
                "K < inf (Jacobian Lipschitz on the ball)",
                value,
                "<=",
                _LARGEST,
                rigorous=lipschitz.rigorous,
                remark=lipschitz.method,
            )
        )
        if not lipschitz.rigorous:  # an estimate may have missed a jump
            checks.append(continuity(evidence))
        constants |= {"K": value, "R": radius, **lipschitz.constants}
        if not all(check.met for check in checks):
            return Hypotheses(tuple(checks), constants)
        regime = _regime(evidence, spectrum, lipschitz, radius)
        checks += _flow_checks(evidence, spectrum, regime, start)
        excess = float(evidence.system.train_loss(evidence.start)) - evidence.minimum
        length = path_bound(regime, constants["lambda"], excess)
        checks.append(
            Check(
                "speed * sqrt(2 lambda (L_0 - L*)) * 2/r < R",
                length,
                "<",
                radius,
                rigorous=lipschitz.rigorous,
                remark="helped by a wider network, a larger output scale or a smaller loss at the start",
            )
        )
        constants |= {
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
            constants |= {"r on the smaller ball": smaller.rate}
            constants |= {
                "length of the path, bound on the smaller ball": path_bound(smaller, constants["lambda"], excess)
            }
        return Hypotheses(tuple(checks), constants)

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The loss at every measured time against both rates, the weights at the end against the ball and the path's length."""
        rate, sharper = hypotheses.constants["r"], hypotheses.constants["r on the smaller ball"]
        length = hypotheses.constants["length of the path, bound on the smaller ball"]
        claims = [*_decay("L_t - L* <= (L_0 - L*) exp(-r t)", evidence, rate)]
        claims += _decay("the same with r on the smaller ball", evidence, sharper)
        claims += _movement(evidence, hypotheses.constants["R"], length, sharper)
        return Conclusion(claims=tuple(claims), curves=_curves(evidence, rate))


def path_bound(regime: Regime, smoothness: float, excess: float) -> float:
    """int ||w'|| <= speed sqrt(2 lambda (L_0 - L*)) 2/r."""
    return regime.speed * math.sqrt(2 * smoothness * excess) * 2 / regime.rate if regime.rate > 0 else math.inf


def _regime(evidence: Evidence, spectrum: GramSpectrum, lipschitz: LipschitzBound, radius: float) -> Regime:
    """Rate and speed on the ball of `radius`, on which J moves by at most K radius."""
    system = evidence.system
    convexity = system.loss.strong_convexity(system.problem.num_train)
    moved = 0.0 if lipschitz.value == 0 else lipschitz.value * radius
    least = math.sqrt(spectrum.smallest - spectrum.error) - moved
    gain = evidence.gain
    assert gain is not None
    scale = _metric_scale(evidence, gain)
    assert scale is not None
    ratio = gain.damping.largest_ratio(least**2)
    if not math.isfinite(ratio):
        return Regime(least, 0.0, math.inf, ratio)
    slowest, _ = gain.bounds(jnp.asarray(least**2), jnp.asarray(least**2), ratio * least**2, (scale, scale))
    largest = math.sqrt(spectrum.largest + spectrum.error) + moved
    return Regime(least, 2 * convexity * float(slowest), gain.speed(least, largest, scale), ratio)


def _metric_scale(evidence: Evidence, gain: AbstractGain) -> float | None:
    """h where H = h I, the same at all outputs; so mu_H = lambda_H = h. None for another metric."""
    targets = evidence.system.problem.y_train
    factor = gain.metric.factor(evidence.system.loss, targets, targets)
    return float(factor.scale) if isinstance(factor, ScaledIdentity) else None


def _flow_checks(evidence: Evidence, spectrum: GramSpectrum, regime: Regime, start: float) -> list[Check]:
    """What is asked of the flow itself: damping below a sigma_min, and a direction that reaches every mode."""
    gain = evidence.gain
    assert gain is not None
    if not gain.is_truncated:
        return [Check("m > 0 (mobility)", regime.rate, ">", 0.0, remark="the rate 2 mu m sigma_min is positive")]
    checks = [
        Check(
            "eps <= a sigma_min on the ball, a < inf",
            regime.ratio,
            "<=",
            _LARGEST,
            remark=f"{type(gain.damping).__name__}, sigma_min >= {regime.singular_value**2:.4g} there",
        )
    ]
    if not evidence.flow.solves_iteratively:
        # All modes are kept as long as the smallest is above the rank cut-off of the largest.
        largest = math.sqrt(spectrum.largest + spectrum.error) + start - regime.singular_value
        cutoff = evidence.system.problem.y_train.size * _EPSILON * largest**2
        name = "every mode is solved for (sigma_min above the rank cut-off on the ball)"
        checks.append(Check(name, regime.singular_value**2, ">", cutoff))
    return checks + solve_accuracy(evidence)


def _decay(name: str, evidence: Evidence, rate: float) -> list[Claim]:
    """log(L_0 - L*) - log(L_t - L*) >= r t at every measured time but the first."""
    logs = evidence.log_excess
    # Where the loss is at the infimum there is nothing to show.
    places = [index for index in range(1, len(logs)) if np.isfinite(logs[index])]
    if not places:
        return []
    tolerance = evidence.tolerance[places]
    error_bound = np.maximum(tolerance, evidence.error_bound[places])
    fallen, bound = logs[0] - logs[places], rate * evidence.times[places]
    resolution = _LOSS_RESOLUTION * bound
    where = [f"at t = {evidence.times[index]:.4g}" for index in places]
    return [worst_claim(name, fallen, bound, fallen - bound, tolerance, error_bound, resolution, where)]


def _movement(evidence: Evidence, radius: float, length: float, rate: float) -> list[Claim]:
    """||w_T - w_0|| <= R, and <= the length that the path can have had until T; the path's length too where it was recorded."""
    settings, steps = evidence.flow_run.settings, num_steps(evidence)
    distance = float(tree_norm(tree_subtract(evidence.flow_end, evidence.start)))
    size = float(tree_norm(evidence.flow_end))
    # What the solver promises of the weights: rtol of their norm, and atol of each, for each step (docs/theory.md).
    promised = 2 * steps * weight_step_error(evidence) + 10 * _EPSILON * size
    # As of the loss: twice the difference to the looser run, at most what is promised.
    measured = 2 * float(tree_norm(tree_subtract(evidence.flow_end, evidence.replicated_end))) + 10 * _EPSILON * size
    error, worst = min(measured, promised), max(measured, promised)
    reached = length * -np.expm1(-rate * evidence.times / 2)
    end = f"at t = {evidence.times[-1]:.4g}"
    claims = [
        Claim(name, distance, bound, bound - distance, error, worst, _DISTANCE_RESOLUTION * bound, end)
        for name, bound in (
            ("||w_T - w_0|| <= R", radius),
            ("||w_T - w_0|| <= bound of the path up to T", float(reached[-1])),
        )
        if math.isfinite(bound)  # R = inf, of a model linear in its weights, claims nothing
    ]
    if "path_length" in evidence.flow_run.data:
        path = evidence.flow_run.data["path_length"].to_numpy()[1:]
        bound, where = reached[1:], [f"at t = {time:.4g}" for time in evidence.times[1:]]
        tolerance, error_bound = error + settings["rtol"] * path, worst + 2 * settings["rtol"] * steps * path
        resolution = _DISTANCE_RESOLUTION * bound
        name = "int ||w'|| <= bound of the path"
        claims.append(worst_claim(name, path, bound, bound - path, tolerance, error_bound, resolution, where))
        claims.append(_recorded_path(evidence))
    return claims


def _recorded_path(evidence: Evidence) -> Claim:
    """The path's length as recorded against the reference's, relative to the whole of it."""
    flow = evidence.flow_run.data["path_length"].to_numpy()
    at = matching(evidence.recorded_times, evidence.times)
    off = np.abs(evidence.trajectory.data["path_length"].to_numpy() - flow[at]) / max(flow[-1], np.finfo(float).tiny)
    # What an honest run is off by, as the replicate was; and what the recorded settings cannot say is beyond five times that.
    error = np.zeros(len(off))
    if evidence.replicate is not None and "path_length" in evidence.replicate.data:
        index, own = evidence.common
        again = evidence.replicate.data["path_length"].to_numpy()[own]
        error = evidence.growing(np.abs(again - flow[index]))[at] / max(flow[-1], np.finfo(float).tiny)
    tolerance = 2 * error + 1e-6
    where = [f"at t = {time:.4g}" for time in evidence.recorded_times]
    name = "the recorded path length is that of a rerun (relative)"
    resolution = np.full(len(off), _DISTANCE_RESOLUTION)
    worst = 5 * tolerance if is_like(evidence) else np.full(len(off), np.inf)
    return worst_claim(name, off, np.zeros(len(off)), -off, tolerance, worst, resolution, where, every=True)


def _curves(evidence: Evidence, rate: float) -> tuple[Curves, ...]:
    times, logs = evidence.times[1:], evidence.log_excess
    if not len(times):
        return ()
    bound = np.exp(logs[0] - rate * times)
    return (Curves(times, "flow time", "L - L*", np.exp(logs[1:]), None, bound),)
