"""Time integrators a run can name: Diffrax solvers, with their order and what they cost."""

from ._explicit import (
    ResolvedSolver as ResolvedSolver,
    resolve_solver as resolve_solver,
    solver_kinds as solver_kinds,
    stages_per_step as stages_per_step,
)
