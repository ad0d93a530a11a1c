"""Exact Gauss-Newton flow with the squared loss: a straight line in output space, at a known rate."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import numpy as np

from .._core import is_own_class, tree_size
from ..losses import ScaledIdentity
from ._base import AbstractTheorem, Conclusion, Hypotheses
from ._certificate import Curves
from ._check import Check
from ._claim import Claim, equality, worst_claim
from ._continuity import continuity
from ._convolution import cumulative_integral, monotone_between
from ._evidence import Evidence
from ._integration_error import (
    accumulated,
    comparison_error,
    log_error,
    num_steps,
    relative_step_errors,
)
from ._invertible import invertibility
from ._rate import RateFit, fit_rate, rate_error
from ._reversible_rate import block_error, exact_blocks

# What agreement must be known to: of the rate; of the logarithm that the loss has fallen by; of the last outputs. A run at the
# default tolerance is known to about that.
_RATE_RESOLUTION = 0.02
LOSS_RESOLUTION = 0.05
OUTPUT_RESOLUTION = 0.025
_LARGEST_ROUNDING = 1e-3  # of log L at a point of the fit: beyond it the record is rounding, not decay
_FEWEST_POINTS = 5  # of a fit


@dataclasses.dataclass(frozen=True)
class ExactRate(AbstractTheorem):
    """Theorem E of docs/theorems/exact_rates.md and its form for reversible networks, E'; exact fact 1 of docs/theory.md.

    Gauss-Newton flow with the squared loss: f_t - y = exp(-k t) (f_0 - y), hence L_t = exp(-2 k t) L_0, whatever the network
    as long as J is continuous along the run.
    With H = c I, no damping and A invertible, k = 1/(c N) per unit of flow time: 1 for the Hessian metric and 1/N for the
    identity. For `ReversibleGaussNewtonFlow`, where its direction is exact and not truncated, k = 1 with either metric.
    """

    name: ClassVar[str] = "exact rate"
    statement: ClassVar[str] = (
        "f_t - y = exp(-k t) (f_0 - y), so L_t = exp(-2 k t) L_0: a straight line in output space"
    )
    reference: ClassVar[str] = (
        "docs/theorems/exact_rates.md, Theorem E (reversible networks: E'); docs/theory.md, exact fact 1"
    )

    def hypotheses(self, evidence: Evidence) -> Hypotheses:
        """Flow and loss, and what makes the flow's direction exact at every measured time."""
        loss, direction = evidence.system.loss, _direction_of(evidence)
        checks = (
            Check.fact("the run is a flow in continuous time", evidence.is_continuous),
            Check.fact("the flow inverts A (Gauss-Newton, spectral of power 1, reversible)", direction is not None),
            Check.fact("the loss is the squared loss", loss.is_squared_distance, remark=type(loss).__name__),
        )
        if direction is None or not all(check.met for check in checks):
            return Hypotheses(checks)
        exactness = direction.hypotheses(evidence)
        checks += exactness.checks
        if all(check.met for check in checks):
            checks += (continuity(evidence),)
        if any(check.met is False for check in checks):
            return Hypotheses(checks, exactness.constants)
        return Hypotheses((*checks, monotone_between("the error of the solves")), exactness.constants)

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The line of log L against time, its fitted slope, and the last residual."""
        rate = hypotheses.constants["k"]
        times = evidence.times
        solves, solves_at_worst = (rate * error for error in _solve_error(evidence, times))
        steps = relative_step_errors(evidence, _residual_norms(evidence))
        loss, tolerance, error_bound = _line_claim(evidence, rate, times, (2 * solves, 2 * solves_at_worst), steps)
        claims = [
            loss,
            _residual_claim(evidence, rate, (float(solves[-1]), float(solves_at_worst[-1])), float(steps[-1])),
        ]
        constants = {"largest error of the direction's solves, in log L": float(2 * solves[-1])}
        fitted = _rate_claim(evidence, rate, tolerance, error_bound)
        if fitted is not None:
            claim, fit = fitted
            claims.append(claim)
            constants |= {
                "fitted rate": fit.rate,
                "fitted rate, lower end of its 95% interval": fit.interval[0],
                "fitted rate, upper end of its 95% interval": fit.interval[1],
                "R^2 of the fit": fit.r_squared,
            }
        logs = evidence.log_excess
        line = np.exp(logs[0] - 2 * rate * evidence.times)
        later = slice(1, None)
        curve = Curves(
            evidence.times[later], "flow time", "L - L*", np.exp(logs[later]), line[later], line[later], log_x=False
        )
        return Conclusion(tuple(claims), constants, (curve,))


@dataclasses.dataclass(frozen=True)
class _Direction:
    """What differs between the flows that follow the line.

    **Attributes:** `hypotheses`: those that make f' = -k (f - y), with k among the constants; `error`: ||f' + k (f - y)|| over
    ||k (f - y)|| at the measured times, (k,).
    """

    hypotheses: Callable[[Evidence], Hypotheses]
    error: Callable[[Evidence], np.ndarray]


def _direction_of(evidence: Evidence) -> _Direction | None:
    """Of a flow that may follow the line; None for others."""
    if evidence.flow.reported_rate is not None:
        return _Direction(exact_blocks, block_error)
    if evidence.gain is not None and evidence.gain.inverts:
        return _Direction(_invertible_kernel, _eigenvalue_error)
    return None


def _invertible_kernel(evidence: Evidence) -> Hypotheses:
    """H = c I, no damping, and A invertible at every measured time: Theorem E."""
    problem = evidence.system.problem
    scale, known = metric_scale(evidence)
    checks = [
        Check(
            "H is a constant multiple of the loss's Hessian",
            float(scale is not None),
            "==",
            1.0,
            rigorous=known,
            remark="" if known else "compared at the first and the last outputs",
        )
    ]
    if scale is None:
        return Hypotheses(tuple(checks))
    rate = evidence.system.loss.strong_convexity(problem.num_train) / scale
    constants = {"k": rate, "rate of the loss 2 k": 2 * rate}
    checks += [
        _no_damping(evidence),
        Check("P >= NC (else A is singular)", float(tree_size(evidence.start)), ">=", float(problem.y_train.size)),
    ]
    if not all(check.met for check in checks):
        return Hypotheses(tuple(checks), constants)
    more, numbers = invertibility(evidence)
    return Hypotheses((*checks, *more), constants | numbers)


def metric_scale(evidence: Evidence) -> tuple[float | None, bool]:
    """c of H = c I and whether that is known to be constant; None for a metric that is no multiple of the identity.

    For flows with the squared loss, whose Hessian is I/N. A metric of the user's is compared at the first and last outputs.
    """
    gain, system = evidence.gain, evidence.system
    assert gain is not None
    factors = [
        gain.metric.factor(system.loss, system.outputs(weights), system.problem.y_train)
        for weights in (evidence.start, evidence.end)
    ]
    scales = [float(factor.scale) for factor in factors if isinstance(factor, ScaledIdentity)]
    if len(scales) < len(factors) or scales[0] != scales[1]:
        return None, True
    return scales[0], is_own_class(type(gain.metric))


def _no_damping(evidence: Evidence) -> Check:
    assert evidence.gain is not None
    damping = evidence.gain.damping
    always = damping.is_zero
    largest = 0.0
    if not always:
        largest = float(evidence.trajectory.stats.get("final_damping", 0.0))
        if largest == 0 and evidence.reference is not None:
            largest = float(evidence.reference.data.band_damping.max())
    remark = type(damping).__name__ + ("" if always else ", largest at the measured times")
    return Check("eps = 0", largest, "<=", 0.0, rigorous=always or largest > 0, remark=remark)


def _residual_norms(evidence: Evidence) -> np.ndarray:
    """||f - y|| at the measured times."""
    return np.sqrt(2 * evidence.system.problem.num_train * np.exp(evidence.log_excess))


def _solve_error(evidence: Evidence, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integral of the relative error of f' = -k (f - y) that the solves for the direction make, and at worst, (k,)."""
    direction = _direction_of(evidence)
    assert direction is not None
    integral, sparse, at_worst = cumulative_integral(times, direction.error(evidence))
    return integral + sparse, integral + at_worst


def _eigenvalue_error(evidence: Evidence) -> np.ndarray:
    """The relative error of a direction from A a = g/c, at the measured times, (k,).

    A backward stable solver solves with A + E, ||E|| <= e: relative error e/(sigma_min - e). To this the residual of the
    last solve is added, or what an iterative solver is allowed to leave.
    """
    data = evidence.flow_run.data
    smallest, error = data.band_smallest.to_numpy(), data.band_eigenvalue_error.to_numpy()
    residual = max(evidence.flow_run.stats.get("final_relative_residual", 0.0), evidence.flow.allowed_residual)
    return error / (smallest - error) + residual


def _line_claim(
    evidence: Evidence, rate: float, times: np.ndarray, solves: tuple[np.ndarray, np.ndarray], steps: np.ndarray
) -> tuple[Claim, np.ndarray, np.ndarray]:
    """log L against the line at the measured times; with tolerance and error bound there."""
    logs = evidence.log_excess
    fallen, expected = logs[0] - logs, 2 * rate * times
    # Every error of the outputs shrinks at the rate k, as the residual does: relative errors of steps add up.
    promised = accumulated(steps, num_steps(evidence))
    resolution = LOSS_RESOLUTION * expected
    tolerance, error_bound = log_error(evidence, logs[0] - expected, promised, solves, resolution)
    claim = worst_claim(
        "log L falls by 2 k t",
        fallen[1:],
        expected[1:],
        -np.abs(fallen - expected)[1:],
        tolerance[1:],
        error_bound[1:],
        resolution[1:],
        [f"at t = {time:.4g}" for time in times[1:]],
    )
    return claim, tolerance, error_bound


def _rate_claim(
    evidence: Evidence, rate: float, tolerance: np.ndarray, error_bound: np.ndarray
) -> tuple[Claim, RateFit] | None:
    """The slope of log L over the run above rounding; None where that has too few points for a fit."""
    logs, times = evidence.log_excess, evidence.times
    used = np.flatnonzero(np.isfinite(logs) & (evidence.rounding <= _LARGEST_ROUNDING))
    if len(used) < _FEWEST_POINTS:
        return None
    fit = fit_rate(times[used], np.exp(logs[used] - logs[0]))
    error, at_worst = (rate_error(times[used], numbers[used]) for numbers in (tolerance, error_bound))
    return equality("fitted rate of L = 2 k", fit.rate, 2 * rate, error, at_worst, _RATE_RESOLUTION * 2 * rate), fit


def _residual_claim(evidence: Evidence, rate: float, solves: tuple[float, float], step: float) -> Claim:
    """||(f_T - y) - exp(-k T) (f_0 - y)|| over ||exp(-k T) (f_0 - y)||, which is 0 on the line."""
    system, end_time = evidence.system, float(evidence.times[-1])
    first, last, again = (_outputs(system, w) for w in (evidence.start, evidence.flow_end, evidence.replicated_end))
    targets = np.asarray(system.problem.y_train)
    expected = np.exp(-rate * end_time) * (first - targets)
    scale = float(np.linalg.norm(expected))
    with np.errstate(divide="ignore", invalid="ignore"):
        distance, difference, deviation = (
            float(np.linalg.norm(change) / np.float64(scale))
            for change in (last - targets - expected, last - again, again - targets - expected)
        )
    errors, errors_at_worst = (float(evidence.rounding[-1]) + error for error in solves)
    promised = float(accumulated(np.asarray(step), num_steps(evidence)))
    tolerance = float(comparison_error(evidence, difference, deviation, promised, OUTPUT_RESOLUTION)) + errors
    return equality(
        "the last residual lies on the line (relative distance)",
        distance,
        0.0,
        tolerance,
        max(promised, difference) + errors_at_worst,
        OUTPUT_RESOLUTION,
        f"at t = {end_time:.4g}",
    )


def _outputs(system, weights) -> np.ndarray:
    return np.asarray(jax.device_get(system.outputs(weights)))
