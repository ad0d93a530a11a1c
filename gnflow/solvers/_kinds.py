"""The solvers that a run can name, and what a run does with each."""

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

# Nothing but the error limits the steps of a solver that is linearised: they may change as fast as the error says.
_UNLIMITED_GROWTH = (0.02, 1000.0)
_LIMITED_GROWTH = (0.2, 10.0)
_ANTICIPATION = 0.75


class Change(NamedTuple):
    """When a run goes on with another solver.

    **Attributes:** `successor`: the other; `least_velocities`: which the run has to have taken before the successor is worth
    compiling; `successor_velocities`: what one of its steps takes, in velocities, for a successor that has to show that it gets
    farther, None for one that always does; `share`: of these, which a step has to take before the successor is tried, None for
    one that is tried where stability limits the steps, and no second time.
    """

    successor: "SolverChoice"
    least_velocities: float
    successor_velocities: float | None = None
    share: float | None = None


class SolverChoice(NamedTuple):
    """A solver, and what a run does with it.

    **Attributes:** `name` and `reason`, which a trajectory's stats report; `min_growth`, `max_growth`: the least and largest
    factor from one step to the next; `anticipation`: how far the step size follows the trend of the errors (where stability
    limits the step, there is no trend to follow); `most_steps`: that are worth their time, None where only the run's own
    limit counts; `change`: to another solver along the run, None for one that stays.
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
        """Whether it takes a `LinearisedTerm`."""
        return self.solver.term_structure is LinearisedTerm

    @property
    def needs_real_spectrum(self) -> bool:
        """Whether the flow's Jacobian has to have one."""
        return isinstance(self.solver, AbstractReportingSolver) and self.solver.needs_real_spectrum


def check_solver(solver: Any) -> None:
    """**Raises:** `ConfigError` unless `solver` is "auto", a name in `solver_kinds` (the message has the nearest), or a
    Diffrax solver with an error estimate."""
    if isinstance(solver, str):
        if solver != "auto":
            look_up(solver, solver_kinds, "solver")
    elif not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise ConfigError(
            f"solver = {shown(solver)}; expected 'auto', one of {', '.join(solver_kinds)}, or a diffrax solver with an error "
            "estimate (gnflow chooses step sizes adaptively; for fixed steps use gnflow.iterate)."
        )


def named_choice(name: str, reason: str) -> SolverChoice:
    """The solver called `name`, a word of `solver_kinds`, for a `reason`."""
    return _choice(solver_kinds[name](), name, reason)


def asked_choice(solver: Any) -> SolverChoice:
    """The solver that was asked for, by its name or as a Diffrax solver."""
    if isinstance(solver, str):
        return named_choice(solver, "asked for")
    kinds = {kind: name for name, kind in solver_kinds.items()}
    return _choice(solver, kinds.get(type(solver), type(solver).__name__.lower()), "asked for")


def stages_per_step(solver: diffrax.AbstractAdaptiveSolver) -> int | None:
    """Velocity evaluations a step takes, of a solver that does not report on them; None where it is not fixed."""
    return 4 if isinstance(solver, ExponentialRungeKutta | ExponentialRosenbrock) else None


def _choice(solver: diffrax.AbstractAdaptiveSolver, name: str, reason: str) -> SolverChoice:
    if solver.term_structure is LinearisedTerm:
        # With the whole Jacobian the error rises and falls from step to step; to follow its trend costs rejections.
        anticipation = 0.0 if isinstance(solver, ExponentialRosenbrock) else _ANTICIPATION
        return SolverChoice(solver, name, reason, *_UNLIMITED_GROWTH, anticipation)
    if isinstance(solver, diffrax.AbstractERK) and isinstance(solver.tableau, diffrax.ButcherTableau):
        solver = ExplicitRungeKutta(solver)
    anticipation = solver.anticipation if isinstance(solver, AbstractReportingSolver) else 0.0
    return SolverChoice(solver, name, reason, *_LIMITED_GROWTH, anticipation)
