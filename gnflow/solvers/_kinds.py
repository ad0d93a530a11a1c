"""The solvers that a run can name, and how a run uses each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax

from .._core import ConfigError, look_up, shown
from ._explicit import ExplicitRungeKutta
from ._exponential import ExponentialRungeKutta
from ._exponential_rosenbrock import ExponentialRosenbrock
from ._implicit import LowRankKvaerno5
from ._reporting import AbstractReportingSolver
from ._stabilised import StabilisedRungeKutta
from ._term import LinearisedTerm

solver_kinds: dict[str, Callable[[], diffrax.AbstractAdaptiveSolver]] = {
    "exponential": ExponentialRungeKutta,
    "exponential_rosenbrock": ExponentialRosenbrock,
    "kvaerno5": LowRankKvaerno5,
    "stabilised": StabilisedRungeKutta,
    "bosh3": diffrax.Bosh3,
    "dopri5": diffrax.Dopri5,
    "tsit5": diffrax.Tsit5,
    "dopri8": diffrax.Dopri8,
}

# Nothing but the error limits the steps of a linearised solver, so they may change as fast as the error allows.
_UNLIMITED_GROWTH = (0.02, 1000.0)
_LIMITED_GROWTH = (0.2, 10.0)
_ANTICIPATION = 0.75


class Change(NamedTuple):
    """When a run goes on with another solver.

    **Attributes:**

    - `successor`: the other solver.
    - `least_velocities`: the velocities that the run must have taken before the successor is worth its compilation.
    - `successor_velocities`: the cost of one of the successor's steps, in velocities, if it is tried and compared; None for a
      successor that always stays.
    - `share`: the successor is tried once a step takes this share of its cost. With None it is tried once stability limits the
      steps, and not again.
    """

    successor: "SolverChoice"
    least_velocities: float
    successor_velocities: float | None = None
    share: float | None = None


class SolverChoice(NamedTuple):
    """A solver, and how a run uses it.

    **Attributes:**

    - `solver`: the solver.
    - `name`, `reason`: its name and why it was chosen, for the stats of a trajectory.
    - `min_growth`, `max_growth`: the smallest and largest ratio of two successive step sizes.
    - `anticipation`: how far the step size follows the trend of the errors. (If stability limits the steps, there is no trend
      to follow.)
    - `most_steps`: the largest number of steps worth their time, or None if only the limit of the run counts.
    - `change`: when the run changes to another solver, or None if this one stays.
    """

    solver: diffrax.AbstractAdaptiveSolver
    name: str
    reason: str
    min_growth: float
    max_growth: float
    anticipation: float
    most_steps: int | None = None
    change: Change | None = None

    @property
    def needs_linearisation(self) -> bool:
        """Whether the solver integrates a `LinearisedTerm`."""
        return self.solver.term_structure is LinearisedTerm

    @property
    def needs_real_spectrum(self) -> bool:
        """Whether the flow's Jacobian must have a real spectrum."""
        return isinstance(self.solver, AbstractReportingSolver) and self.solver.needs_real_spectrum


def check_solver(solver: Any) -> None:
    """Check that `solver` is "auto", a name in `solver_kinds` or a Diffrax solver with an error estimate.

    **Raises:** `ConfigError` otherwise. For an unknown name the message gives the nearest one.
    """
    if isinstance(solver, str):
        if solver != "auto":
            look_up(solver, solver_kinds, "solver")
    elif not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise ConfigError(
            f"solver = {shown(solver)}; expected 'auto', one of {', '.join(solver_kinds)}, or a diffrax solver with an error "
            "estimate (gnflow chooses step sizes adaptively; for fixed steps use gnflow.iterate)."
        )


def named_choice(name: str, reason: str) -> SolverChoice:
    """The solver called `name` in `solver_kinds`, chosen for `reason`."""
    return _choice(solver_kinds[name](), name, reason)


def asked_choice(solver: Any) -> SolverChoice:
    """The solver that the user asked for, by its name or as a Diffrax solver."""
    if isinstance(solver, str):
        return named_choice(solver, "asked for")
    kinds = {kind: name for name, kind in solver_kinds.items()}
    return _choice(solver, kinds.get(type(solver), type(solver).__name__.lower()), "asked for")


def stages_per_step(solver: diffrax.AbstractAdaptiveSolver) -> int | None:
    """The velocity evaluations in one step of a solver that does not report them; None if their number is not fixed."""
    return 4 if isinstance(solver, ExponentialRungeKutta | ExponentialRosenbrock) else None


def _choice(solver: diffrax.AbstractAdaptiveSolver, name: str, reason: str) -> SolverChoice:
    if solver.term_structure is LinearisedTerm:
        # With the whole Jacobian the error rises and falls from step to step. Following its trend would cost rejected steps.
        anticipation = 0.0 if isinstance(solver, ExponentialRosenbrock) else _ANTICIPATION
        return SolverChoice(solver, name, reason, *_UNLIMITED_GROWTH, anticipation)
    if isinstance(solver, diffrax.AbstractERK) and isinstance(solver.tableau, diffrax.ButcherTableau):
        solver = ExplicitRungeKutta(solver)
    anticipation = solver.anticipation if isinstance(solver, AbstractReportingSolver) else 0.0
    return SolverChoice(solver, name, reason, *_LIMITED_GROWTH, anticipation)
