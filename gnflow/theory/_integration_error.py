"""What the integration may have done to a run's outputs, weights and loss: as the solver promises, and as two runs differ."""

import numpy as np

from .._core import tree_norm, tree_size
from ._evidence import Evidence

# Two runs that differ by d are off by less than 2 d, but for what the errors of a few steps have in common.
_SAFETY = 2.0
_SHARED_STEPS = 4


def relative_step_errors(
    evidence: Evidence, residual_norms: np.ndarray, largest_eigenvalue: float | None = None
) -> np.ndarray:
    """What one step may change ||f - y|| by, relative to each of `residual_norms`, (k,), as the solver promises.

    rtol + atol/rms(f - y) where steps are judged in the outputs (docs/theory.md, The error norm in function space); where they
    are judged by the weights alone, the rms of their error times sqrt(P sigma_max).

    **Arguments:** `largest_eigenvalue`: sigma_max over the run; by default what the second run measured of it.
    """
    settings, problem = evidence.trajectory.settings, evidence.system.problem
    if settings["error_norm"] == "function":
        with np.errstate(divide="ignore"):
            return settings["rtol"] + settings["atol"] * np.sqrt(problem.num_train) / residual_norms
    if largest_eigenvalue is None:
        assert evidence.second_run is not None
        largest_eigenvalue = float(evidence.second_run.data.band_largest.max())
    with np.errstate(divide="ignore"):
        return np.sqrt(largest_eigenvalue) * weight_step_error(evidence) / residual_norms


def weight_step_error(evidence: Evidence) -> float:
    """The Euclidean norm of the error of all weights that one step may make: rtol ||w|| + atol sqrt(P)."""
    settings = evidence.trajectory.settings
    norm = max(float(tree_norm(evidence.start)), float(tree_norm(evidence.end)))
    return settings["rtol"] * norm + settings["atol"] * tree_size(evidence.start) ** 0.5


def accumulated(relative: np.ndarray, steps: int) -> np.ndarray:
    """Relative errors of single steps summed over the run; infinite where one step may be off by all there is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(relative < 1, steps * relative / (1 - relative), np.inf)


def comparison_error(
    evidence: Evidence,
    difference: np.ndarray | float,
    deviation: np.ndarray | float,
    promised: np.ndarray | float,
    resolution: np.ndarray | float,
) -> np.ndarray:
    """The error with which an observation is compared to the value that a theorem gives, relative, as rtol is.

    What is `promised` for all steps where that is below the `resolution`. Where it says too little, twice the smaller of the
    `difference` of the record to the second run and the `deviation` of the second run from the theorem's value: a record that
    was changed is far from the second run, which must not excuse it; a theorem that is false is far from both runs, which
    must not excuse it either. That at least what four steps may do, which both runs may have in common.
    """
    shared = _SHARED_STEPS * evidence.trajectory.settings["rtol"]
    measured = np.minimum(np.maximum(_SAFETY * np.minimum(difference, deviation), shared), promised)
    return np.asarray(np.where(np.asarray(promised) <= resolution, promised, measured))


def log_error(
    evidence: Evidence,
    expected: np.ndarray,
    steps: np.ndarray,
    others: tuple[np.ndarray, np.ndarray],
    resolution: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Tolerance and error bound of log(L - L*) at the chosen times, (k,), where a theorem says that it is `expected`.

    **Arguments:** `steps`: relative error of the residual that the solver promises of the run so far; `others`: errors of the
    logarithm that have to do with neither run, as estimated and at worst; `resolution` of the logarithm.
    """
    assert evidence.second_run is not None
    with np.errstate(divide="ignore"):
        again = np.log(np.maximum(evidence.second_run.data["train_loss"].to_numpy() - evidence.minimum, 0.0))
    difference = np.maximum.accumulate(np.abs(evidence.log_excess[evidence.chosen] - again))
    deviation = np.maximum.accumulate(np.abs(again - expected))
    extra, extra_at_worst = (other + evidence.rounding[evidence.chosen] for other in others)
    # The logarithm of L has twice the relative error of the residual.
    error = comparison_error(evidence, difference / 2, deviation / 2, steps, resolution / 2)
    return 2 * error + extra, 2 * steps + extra_at_worst


def num_steps(evidence: Evidence) -> int:
    """Accepted steps of the run, at least 1."""
    return max(int(evidence.trajectory.stats["num_accepted_steps"]), 1)
