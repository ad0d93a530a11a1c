"""Whether the direction that an iterative solver gives is the flow's."""

import math

from ..flows import AbstractFlow, GaussNewtonFlow
from ..geometry.directions import Cholesky, TruncatedEigh
from ._check import Check
from ._evidence import Evidence

# How accurate the direction of an iterative solver has to be to count as Gauss-Newton's.
_LARGEST_RESIDUAL = 1e-6


def solves_iteratively(flow: AbstractFlow) -> bool:
    """Whether the flow's direction comes from a solver that stops at a residual, and not from a factorisation."""
    return isinstance(flow, GaussNewtonFlow) and not isinstance(flow.solver, TruncatedEigh | Cholesky)


def largest_residual(evidence: Evidence) -> float:
    """Of the solves for the direction, relative, at the saved times: 0 for direct solvers, nan where it was not recorded."""
    if not solves_iteratively(evidence.flow):
        return 0.0
    recorded = evidence.trajectory.data.get("relative_residual")
    return math.nan if recorded is None else float(recorded.max())


def solve_accuracy(evidence: Evidence) -> list[Check]:
    """For iterative solvers the check that they solved for Gauss-Newton's direction; nothing for others."""
    if not solves_iteratively(evidence.flow):
        return []
    name = "the direction is Gauss-Newton's (relative residual of the solve)"
    residual = largest_residual(evidence)
    return [Check(name, residual, "<=", _LARGEST_RESIDUAL, rigorous=False, remark="at the saved times")]
