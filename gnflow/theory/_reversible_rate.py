"""When the block-wise Gauss-Newton flow of a reversible network is exact, and how far from exact it was."""

import numpy as np

from ..geometry._block_gauss_newton import EXACT
from ._base import Hypotheses
from ._check import Check
from ._evidence import Evidence


def exact_blocks(evidence: Evidence) -> Hypotheses:
    """The direction misses nothing of what it is asked for at any measured time, and then k = 1 per unit of flow time.

    Of the squared loss, with either metric of `ReversibleGaussNewtonFlow`; docs/theorems/exact_rates.md, Theorem E'.
    """
    rate = evidence.flow.reported_rate
    assert rate is not None
    constants = {"k": rate, "rate of the loss 2 k": 2 * rate}
    checks = [evidence.repeated()]
    if not checks[0].met:
        return Hypotheses(tuple(checks), constants)
    times, residuals = _all_residuals(evidence)
    worst = int(np.argmax(residuals))
    rank, samples = int(evidence.flow_run.data.half_block_rank.min()), evidence.system.problem.num_train
    checks.append(
        Check(
            "the direction is exact (relative residual)",
            float(residuals[worst]),
            "<=",
            EXACT,
            rigorous=False,
            remark=f"largest at t = {times[worst]:.4g}, of {len(np.unique(times))} measured times; "
            f"least rank of a half-block {rank}, {samples} samples",
        )
    )
    return Hypotheses(
        tuple(checks), constants | {"largest relative residual of the direction": float(residuals[worst])}
    )


def block_error(evidence: Evidence) -> np.ndarray:
    """||f' + (f - y)|| / ||f - y|| at the measured times, (k,), at most: dimensionless, from the measured residuals.

    The residuals are those of the last features, which u projects to the outputs; what u lacks of being orthonormal is added.
    """
    residuals = _finite(evidence.flow_run.data.relative_residual.to_numpy())
    projection = np.asarray(evidence.system.model(evidence.start).output_projection)
    gram = projection.T @ projection
    return residuals * np.linalg.norm(gram, 2) + np.linalg.norm(gram - np.eye(len(gram)), 2)


def _all_residuals(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Times and residuals there: of the reference, of the run's end, and at every saved time where it recorded them."""
    times, residuals = [evidence.times], [evidence.flow_run.data.relative_residual.to_numpy()]
    times.append(evidence.recorded_times[-1:])
    residuals.append(np.array([_last_residual(evidence)]))
    recorded = evidence.trajectory.data.get("relative_residual")
    if recorded is not None:
        times.append(evidence.recorded_times)
        residuals.append(recorded.to_numpy())
    return np.concatenate(times), _finite(np.concatenate(residuals))


def _last_residual(evidence: Evidence) -> float:
    return float(evidence.trajectory.stats["final_relative_residual"])


def _finite(residuals: np.ndarray) -> np.ndarray:
    """What is not a number is not exact either."""
    return np.where(np.isnan(residuals), np.inf, residuals)
