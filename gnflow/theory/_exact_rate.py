"""Exact Gauss-Newton flow with the squared loss: a straight line in output space, at a known rate."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np

from .._core import tree_size
from ..geometry._block_gauss_newton import EXACT
from ._accuracy import LOSS_RESOLUTION
from ._base import AbstractTheorem, Conclusion, Hypotheses, Stage, in_stages
from ._claim import Check, Claim, Error, compare, compare_along
from ._continuity import continuity
from ._convolution import cumulative_integral
from ._evidence import Evidence
from ._hypotheses import continuous_time, invertible, metric_scale, monotone_between, squared_loss
from ._rate import fit_rate, rate_error

_RATE_RESOLUTION = 0.02  # relative accuracy at which agreement of the fitted rate says something
_LARGEST_ROUNDING = 1e-3  # largest rounding of log L at a point of the fit; with more the curve is not a decay
_FEWEST_POINTS = 5  # least number of points of a fit


@dataclasses.dataclass(frozen=True)
class ExactRate(AbstractTheorem):
    """Theorem E of docs/theorems/exact_rates.md and its form for reversible networks, E'; exact fact 1 of docs/theory.md.

    Gauss-Newton flow with the squared loss has f_t - y = exp(-k t) (f_0 - y), hence L_t = exp(-2 k t) L_0, for any network as
    long as J is continuous along the run. With H = c I, no damping and A invertible, k = 1/(c N) per unit of flow time: 1 for
    the Hessian metric and 1/N for the identity. For `ReversibleGaussNewtonFlow`, if its direction is exact and not truncated,
    k = 1 with either metric.
    """

    name: ClassVar[str] = "exact rate"
    statement: ClassVar[str] = (
        "f_t - y = exp(-k t) (f_0 - y), so L_t = exp(-2 k t) L_0: a straight line in output space"
    )
    allows_residuals: ClassVar[bool] = True
    reference: ClassVar[str] = (
        "docs/theorems/exact_rates.md, Theorem E (reversible networks: E'); docs/theory.md, exact fact 1"
    )

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """Flow and loss, and what makes the flow's direction exact at every measured time."""
        direction = _direction_of(evidence)
        inverts = Check.fact(
            "the flow inverts A (Gauss-Newton, spectral of power 1, reversible)", direction is not None
        )
        yield continuous_time(evidence), inverts, squared_loss(evidence)
        assert direction is not None
        yield from direction.hypotheses(evidence)
        passes = continuity(evidence)
        assumed = () if passes.met is False else (monotone_between("the error of the solves"),)
        yield passes, *assumed

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The line of log L against time, its fitted slope, and the last residual."""
        rate = hypotheses.constants["k"]
        times, logs, accuracy = evidence.times, evidence.log_excess, evidence.accuracy
        solves = rate * _solve_error(evidence)
        steps = accuracy.relative_steps(np.sqrt(2 * evidence.system.problem.num_train * np.exp(logs)))
        fallen, expected = logs[0] - logs, 2 * rate * times
        resolution = LOSS_RESOLUTION * expected
        # Every error of the outputs shrinks at the rate k, as the residual does: relative errors of steps add up.
        error = accuracy.loss_agreement(logs[0] - expected, accuracy.accumulated(steps), resolution) + 2 * solves
        claims = [
            compare_along("log L falls by 2 k t", times, fallen, "==", expected, error, resolution),
            _residual_claim(evidence, rate, solves[-1], float(steps[-1])),
        ]
        constants = {"largest error of the direction's solves, in log L": float(2 * solves.measured[-1])}
        # The slope over the run above rounding, where that has points enough for a fit.
        used = np.flatnonzero(np.isfinite(logs) & (accuracy.rounding <= _LARGEST_ROUNDING))
        if len(used) >= _FEWEST_POINTS:
            fit = fit_rate(times[used], np.exp(logs[used] - logs[0]))
            error = error[used]
            error = Error(rate_error(times[used], error.measured), rate_error(times[used], error.at_worst))
            name, resolution = "fitted rate of L = 2 k", _RATE_RESOLUTION * 2 * rate
            claims.append(compare(name, fit.rate, "==", 2 * rate, error, resolution))
            constants |= {
                "fitted rate": fit.rate,
                "fitted rate, lower end of its 95% interval": fit.interval[0],
                "fitted rate, upper end of its 95% interval": fit.interval[1],
                "R^2 of the fit": fit.r_squared,
            }
        line = np.exp(logs[0] - expected)
        return Conclusion(tuple(claims), constants, (evidence.loss_curve(line, line, log_x=False),))


@dataclasses.dataclass(frozen=True)
class _Direction:
    """What differs between the flows that follow the line.

    **Attributes:**

    - `hypotheses`: the hypotheses, in stages, that give f' = -k (f - y). k is among their constants.
    - `error`: returns ||f' + k (f - y)|| / ||k (f - y)|| at the measured times (k,).
    """

    hypotheses: Callable[[Evidence], Iterator[Stage]]
    error: Callable[[Evidence], np.ndarray]


def _direction_of(evidence: Evidence) -> _Direction | None:
    """The direction of a flow that may follow the line; None for other flows."""
    if evidence.flow.reported_rate is not None:
        return _Direction(_exact_blocks, _block_error)
    if evidence.gain is not None and evidence.gain.inverts:
        return _Direction(_invertible_kernel, _eigenvalue_error)
    return None


def _invertible_kernel(evidence: Evidence) -> Iterator[Stage]:
    """H = c I, no damping, and A invertible at every measured time: Theorem E."""
    problem = evidence.system.problem
    scale, known = metric_scale(evidence)
    remark = "" if known else "compared at the first and the last outputs"
    yield (Check.fact("H is a constant multiple of the loss's Hessian", scale is not None, remark, rigorous=known),)
    assert scale is not None
    rate = evidence.system.loss.strong_convexity(problem.num_train) / scale
    weights, outputs = float(tree_size(evidence.start)), float(problem.y_train.size)
    enough = Check("P >= NC (else A is singular)", weights, ">=", outputs)
    yield {"k": rate, "rate of the loss 2 k": 2 * rate}, _no_damping(evidence), enough
    yield (evidence.repeated(),)
    yield invertible(evidence)


def _no_damping(evidence: Evidence) -> Check:
    damping, largest = evidence.law.damping, 0.0
    always = damping.is_zero
    if not always:
        largest = float(evidence.trajectory.stats.get("final_damping", 0.0))
        if largest == 0 and evidence.reference is not None:
            largest = float(evidence.band.damping.max())
    remark = type(damping).__name__ + ("" if always else ", largest at the measured times")
    return Check("eps = 0", largest, "<=", 0.0, rigorous=always or largest > 0, remark=remark)


def _solve_error(evidence: Evidence) -> Error:
    """The integral (k,) of the relative error of f' = -k (f - y) from the direction solves."""
    direction = _direction_of(evidence)
    assert direction is not None
    integral, error = cumulative_integral(evidence.times, direction.error(evidence))
    return error + integral


def _eigenvalue_error(evidence: Evidence) -> np.ndarray:
    """The relative error (k,) of a direction from A a = g/c at the measured times.

    It is the error of a direct solver, plus the residual of the last solve or the one that an iterative solver may leave.
    """
    residual = max(evidence.flow_run.stats.get("final_relative_residual", 0.0), evidence.flow.allowed_residual)
    return evidence.band.solve_error + residual


def _residual_claim(evidence: Evidence, rate: float, solves: Error, step: float) -> Claim:
    """||(f_T - y) - exp(-k T) (f_0 - y)|| over ||exp(-k T) (f_0 - y)||, which is 0 on the line."""
    targets, accuracy = evidence.targets, evidence.accuracy
    first, last, again = (
        evidence.outputs(w) - targets for w in (evidence.start, evidence.flow_end, evidence.replicated_end)
    )
    expected = np.exp(-rate * evidence.times[-1]) * first
    name = "the last residual lies on the line (relative distance)"
    promised, other = float(accuracy.accumulated(step)), solves + float(accuracy.rounding[-1])
    return accuracy.last_outputs(name, (last, again), expected, float(np.linalg.norm(expected)), promised, other)


def _exact_blocks(evidence: Evidence) -> Iterator[Stage]:
    """The direction is exact at every measured time. Then k = 1 per unit of flow time.

    This is for the squared loss, with either metric of `ReversibleGaussNewtonFlow`; docs/theorems/exact_rates.md, Theorem E'.
    """
    rate = evidence.flow.reported_rate
    assert rate is not None
    yield {"k": rate, "rate of the loss 2 k": 2 * rate}, evidence.repeated()
    times, residuals = _all_residuals(evidence)
    worst = int(np.argmax(residuals))
    largest = float(residuals[worst])
    rank, samples = int(evidence.flow_run.data.half_block_rank.min()), evidence.system.problem.num_train
    remark = (
        f"largest at t = {times[worst]:.4g}, of {len(np.unique(times))} measured times; "
        f"least rank of a half-block {rank}, {samples} samples"
    )
    name = "the direction is exact (relative residual)"
    exact = Check(name, largest, "<=", EXACT, rigorous=False, remark=remark)
    yield exact, {"largest relative residual of the direction": largest}


def _block_error(evidence: Evidence) -> np.ndarray:
    """A bound of ||f' + (f - y)|| / ||f - y|| at the measured times (k,), dimensionless, from the measured residuals.

    The residuals are those of the last features, which u projects to the outputs. The deviation of u from orthonormal columns
    is added.
    """
    residuals = _finite(evidence.flow_run.data.relative_residual.to_numpy())
    projection = np.asarray(evidence.system.model(evidence.start).output_projection)
    gram = projection.T @ projection
    return residuals * np.linalg.norm(gram, 2) + np.linalg.norm(gram - np.eye(len(gram)), 2)


def _all_residuals(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Times and residuals of the reference, of the end of the run, and of every saved time if the run recorded them."""
    record, saves = evidence.trajectory, evidence.recorded_times
    found = [(evidence.times, evidence.flow_run.data.relative_residual.to_numpy())]
    found.append((saves[-1:], np.array([float(record.stats["final_relative_residual"])])))
    if "relative_residual" in record.data:
        found.append((saves, record.data.relative_residual.to_numpy()))
    times, residuals = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return times, _finite(residuals)


def _finite(residuals: np.ndarray) -> np.ndarray:
    """A residual that is nan counts as infinite: nothing shows that the direction is exact."""
    return np.where(np.isnan(residuals), np.inf, residuals)
