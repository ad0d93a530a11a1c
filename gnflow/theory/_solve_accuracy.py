"""Whether the direction that an iterative solver gives is the flow's."""

import math

import jax.numpy as jnp

from ..flows import AbstractFlow
from ._check import Check
from ._evidence import Evidence

# How accurate the direction of an iterative solver has to be to count as Gauss-Newton's.
_LARGEST_RESIDUAL = 1e-6


def largest_residual(evidence: Evidence) -> float:
    """Of the solves for the direction, relative, at the times of the reference and where it was recorded.

    Where it may change more of the rate than its own size (`AbstractFlow.residual_amplification`) it is that, of the reference
    alone. 0 for direct solvers; nan where neither is there.
    """
    if not evidence.flow.solves_iteratively:
        return 0.0
    found = [] if _is_amplified(evidence.flow) else [evidence.trajectory.data.get("relative_residual")]
    if evidence.is_continuous and evidence.reference is not None:
        found.append(evidence.reference.data.get("band_residual"))
    return max((float(residuals.max()) for residuals in found if residuals is not None), default=math.nan)


def solve_accuracy(evidence: Evidence) -> list[Check]:
    """For iterative solvers the check that they solved for Gauss-Newton's direction; nothing for others."""
    if not evidence.flow.solves_iteratively:
        return []
    name = "the direction is Gauss-Newton's (relative residual of the solve)"
    residual = largest_residual(evidence)
    remark = "at the measured times"
    if _is_amplified(evidence.flow):
        remark += ', times 1 + gamma ||H A||; a smaller tol or products="dense" lowers it'
    return [Check(name, residual, "<=", _LARGEST_RESIDUAL, rigorous=False, remark=remark)]


def _is_amplified(flow: AbstractFlow) -> bool:
    return float(flow.residual_amplification(jnp.ones(()))) != 1.0
