"""When the block-wise Gauss-Newton flow of a reversible network is exact, and how far from exact it was."""

import numpy as np

from ..geometry._block_gauss_newton import EXACT
from ..metrics import DirectionDiagnostics, NTKSpectrum
from ..simulate import Trajectory
from ._base import Hypotheses
from ._check import Check
from ._evidence import Evidence
from ._integration_error import relative_step_errors

# f' = -e with e = N grad L for the identity metric, e = H^+ grad L for the Hessian. The squared loss has grad L = (f - y)/N and
# H = I/N: e = f - y either way.
_RATE = 1.0


def exact_blocks(evidence: Evidence) -> Hypotheses:
    """The direction misses nothing of what it is asked for at any measured time, and then k = 1 per unit of flow time.

    Of the squared loss, with either metric of `ReversibleGaussNewtonFlow`; docs/theorems/exact_rates.md, Theorem E'.
    """
    constants = {"k": _RATE, "rate of the loss 2 k": 2 * _RATE}
    repeated = None if evidence.second_run is None else _directions(evidence)
    checks = [evidence.repeated(repeated)]
    if repeated is None:
        return Hypotheses(tuple(checks), constants)
    times, residuals = _all_residuals(evidence, repeated)
    worst = int(np.argmax(residuals))
    rank, samples = int(repeated.data.half_block_rank.min()), evidence.system.problem.num_train
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
    """||f' + (f - y)|| / ||f - y|| at the chosen times, (k,), at most: dimensionless, from the measured residuals.

    The residuals are those of the last features, which u projects to the outputs; what u lacks of being orthonormal is added.
    """
    repeated = _directions(evidence)
    assert repeated is not None
    residuals = _finite(repeated.data.relative_residual.to_numpy())
    residuals[-1] = max(residuals[-1], _last_residual(evidence))
    projection = np.asarray(evidence.system.model(evidence.start).output_projection)
    gram = projection.T @ projection
    return residuals * np.linalg.norm(gram, 2) + np.linalg.norm(gram - np.eye(len(gram)), 2)


def block_step_errors(evidence: Evidence, residual_norms: np.ndarray) -> np.ndarray:
    """What `relative_step_errors` says; where steps are judged by the weights alone, with sigma_max from the repeated run."""
    if _judges_outputs(evidence):
        return relative_step_errors(evidence, residual_norms)
    repeated = _directions(evidence)
    assert repeated is not None
    largest = float(repeated.data.ntk_largest_eigenvalue.max())
    return relative_step_errors(evidence, residual_norms, largest)


def _directions(evidence: Evidence) -> Trajectory | None:
    """The run again, with the residuals of its directions at the chosen times; None as of `Evidence.repeat`."""
    metrics = (DirectionDiagnostics(), *(() if _judges_outputs(evidence) else (NTKSpectrum(),)))
    return evidence.once("directions of blocks", lambda: evidence.repeat(evidence.times[evidence.chosen], metrics))


def _all_residuals(evidence: Evidence, repeated: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Times and residuals there: of the repeated run, of the run's end, and at every saved time where it recorded them."""
    times = [evidence.times[evidence.chosen], evidence.times[-1:]]
    residuals = [repeated.data.relative_residual.to_numpy(), [_last_residual(evidence)]]
    recorded = evidence.trajectory.data.get("relative_residual")
    if recorded is not None:
        times.append(evidence.times)
        residuals.append(recorded.to_numpy())
    return np.concatenate(times), _finite(np.concatenate(residuals))


def _last_residual(evidence: Evidence) -> float:
    return float(evidence.trajectory.stats["final_relative_residual"])


def _finite(residuals: np.ndarray) -> np.ndarray:
    """What is not a number is not exact either."""
    return np.where(np.isnan(residuals), np.inf, residuals)


def _judges_outputs(evidence: Evidence) -> bool:
    return evidence.trajectory.settings["error_norm"] == "function"
