"""Explicit Runge-Kutta methods of Diffrax, and the choice that `solver="auto"` makes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax

from .._core import ConfigError, look_up

solver_kinds: dict[str, Callable[[], diffrax.AbstractERK]] = {
    "bosh3": diffrax.Bosh3,
    "dopri5": diffrax.Dopri5,
    "tsit5": diffrax.Tsit5,
    "dopri8": diffrax.Dopri8,
}


class ResolvedSolver(NamedTuple):
    """A solver and its `name`, which a trajectory's stats report."""

    solver: diffrax.AbstractAdaptiveSolver
    name: str


def resolve_solver(solver: Any) -> ResolvedSolver:
    """The solver a run asked for.

    **Arguments:** `solver`: "auto" (Tsit5: Gauss-Newton flow is not stiff; gradient flow is, and takes many steps), a name in
    `solver_kinds`, or a Diffrax adaptive solver.

    **Raises:** `ConfigError` for an unknown name, with the nearest valid one, or a solver without error estimate.
    """
    if isinstance(solver, str):
        name = "tsit5" if solver == "auto" else solver
        return ResolvedSolver(look_up(name, solver_kinds, "solver")(), name)
    if not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise ConfigError(
            f"solver = {solver!r}; expected 'auto', one of {', '.join(solver_kinds)}, or a diffrax solver with an error "
            "estimate (gnflow chooses step sizes adaptively; for fixed steps use gnflow.iterate)."
        )
    return ResolvedSolver(solver, type(solver).__name__.lower())


def stages_per_step(solver: diffrax.AbstractAdaptiveSolver) -> int | None:
    """Velocity evaluations a step takes, counting the one it shares with the step before; None where it is not fixed."""
    if not isinstance(solver, diffrax.AbstractERK) or not isinstance(solver.tableau, diffrax.ButcherTableau):
        return None
    return solver.tableau.num_stages - int(bool(solver.tableau.fsal))
