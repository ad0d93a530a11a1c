"""Whether the direction that an iterative solver gives is the flow's."""

import math

from ..flows import AbstractFlow, DualGaussNewtonFlow, GaussNewtonFlow
from ..geometry.directions import Cholesky, TruncatedEigh
from ._check import Check
from ._evidence import Evidence

# How accurate the direction of an iterative solver has to be to count as Gauss-Newton's.
_LARGEST_RESIDUAL = 1e-6


def solves_iteratively(flow: AbstractFlow) -> bool:
    """Whether the flow's direction comes from a solver that stops at a residual, and not from a factorisation."""
    if isinstance(flow, DualGaussNewtonFlow):
        return True  # but where its oracle finds a factorisation cheaper, which leaves next to no residual
    return isinstance(flow, GaussNewtonFlow) and not isinstance(flow.solver, TruncatedEigh | Cholesky)


def largest_residual(evidence: Evidence) -> float:
    """Of the solves for the direction, relative, at the times of the reference and where it was recorded.

    Of a dual direction it is what the residual may change of the rate (docs/theorems/sandwich.md), of the reference alone. 0
    for direct solvers; nan where neither is there.
    """
    if not solves_iteratively(evidence.flow):
        return 0.0
    is_dual = isinstance(evidence.flow, DualGaussNewtonFlow)
    found = [] if is_dual else [evidence.trajectory.data.get("relative_residual")]
    if evidence.is_continuous and evidence.reference is not None:
        found.append(evidence.reference.data.get("band_residual"))
    return max((float(residuals.max()) for residuals in found if residuals is not None), default=math.nan)


def solve_accuracy(evidence: Evidence) -> list[Check]:
    """For iterative solvers the check that they solved for Gauss-Newton's direction; nothing for others."""
    if not solves_iteratively(evidence.flow):
        return []
    name = "the direction is Gauss-Newton's (relative residual of the solve)"
    residual = largest_residual(evidence)
    remark = "at the measured times"
    if isinstance(evidence.flow, DualGaussNewtonFlow):
        remark += ', times 1 + gamma ||H A||; a smaller tol or products="dense" lowers it'
    return [Check(name, residual, "<=", _LARGEST_RESIDUAL, rigorous=False, remark=remark)]
