"""What the integration may have done to the reference's outputs, weights and loss: as promised, and as two runs differ."""

import numpy as np

from .._core import tree_norm, tree_size
from ._evidence import SHARE, Evidence

# Two runs that differ by d are off by less than 2 d, but for what the errors of a few steps have in common.
_SAFETY = 2.0
_SHARED_STEPS = 4


def relative_step_errors(evidence: Evidence, residual_norms: np.ndarray) -> np.ndarray:
    """What one step may change ||f - y|| by, relative to each of `residual_norms`, (k,), as the solver promises.

    rtol + atol/rms(f - y): steps of the reference are judged in the outputs (docs/theory.md, The error norm in function space).
    """
    settings, problem = evidence.flow_run.settings, evidence.system.problem
    with np.errstate(divide="ignore"):
        return settings["rtol"] + settings["atol"] * np.sqrt(problem.num_train) / residual_norms


def weight_step_error(evidence: Evidence) -> float:
    """The Euclidean norm of the error of all weights that one step may make: rtol ||w|| + atol sqrt(P)."""
    settings = evidence.flow_run.settings
    norm = max(float(tree_norm(evidence.start)), float(tree_norm(evidence.flow_end)))
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
    """The error with which the reference is compared to the value that a theorem gives, relative, as rtol is.

    What is `promised` for all steps where that is below the `resolution`. Where it says too little, twice the smaller of the
    `difference` of the reference to the replicate and the `deviation` of the replicate from the theorem's value: a theorem
    that is false is far from both runs, which must not excuse it. That at least what four steps may do, which both runs
    may have in common.
    """
    shared = _SHARED_STEPS * evidence.flow_run.settings["rtol"]
    measured = np.minimum(np.maximum(_SAFETY * np.minimum(difference, deviation), shared), promised)
    return np.asarray(np.where(np.asarray(promised) <= resolution, promised, measured))


def log_error(
    evidence: Evidence,
    expected: np.ndarray,
    steps: np.ndarray,
    others: tuple[np.ndarray, np.ndarray],
    resolution: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Tolerance and error bound of log(L - L*) at the reference's times, (k,), where a theorem says that it is `expected`.

    **Arguments:** `steps`: relative error of the residual that the solver promises of the run so far; `others`: errors of the
    logarithm that have to do with neither run, as estimated and at worst; `resolution` of the logarithm.
    """
    deviation = evidence.growing(np.abs(evidence.log_replicated - expected[evidence.common[0]]))
    extra, extra_at_worst = (other + evidence.rounding for other in others)
    # The logarithm of L has twice the relative error of the residual.
    error = comparison_error(evidence, evidence.between / 2, deviation / 2, steps, resolution / 2)
    # Between its steps a solver interpolates, of which it promises nothing: both runs tell.
    tolerance = np.maximum(2 * error, SHARE * evidence.between)
    return tolerance + extra, np.maximum(2 * steps, evidence.between[-1]) + extra_at_worst


def num_steps(evidence: Evidence) -> int:
    """Accepted steps of the reference, at least 1."""
    return max(int(evidence.flow_run.stats["num_accepted_steps"]), 1)
