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
    """Of the solves for the direction, relative, at the saved times or those of the second run where it was not recorded.

    Of a dual direction it is what the residual may change of the rate (docs/theorems/sandwich.md), from the second run. 0 for
    direct solvers; nan where there is no record.
    """
    if not solves_iteratively(evidence.flow):
        return 0.0
    is_dual = isinstance(evidence.flow, DualGaussNewtonFlow)
    recorded = None if is_dual else evidence.trajectory.data.get("relative_residual")
    if recorded is None and evidence.second_run is not None:
        recorded = evidence.second_run.data.get("band_residual")
    return math.nan if recorded is None else float(recorded.max())


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
