"""The solvers a run can name, what each asks for, and the choice that `solver="auto"` makes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax

from .._core import ConfigError, look_up
from ._exponential import ExponentialRungeKutta
from ._exponential_rosenbrock import ExponentialRosenbrock
from ._implicit import LowRankKvaerno5
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

# Below it Dopri8 reaches the same error in less time on Gauss-Newton flows (docs/devdocs/solvers.md).
_TIGHT_RTOL = 1e-4
_TIGHT_RTOL_ON_KINKS = 5e-6  # below those of second solutions: steps are cut at kinks, whatever the order

# Rate of the fastest mode times length of the run: Tsit5 is stable in a handful of steps.
_EXPLICIT_SPAN = 10.0


# Weights up to which the whole Jacobian is worth its time (docs/devdocs/solvers.md, Few weights): at once, and where the
# low-rank solver has run out of steps, with the number of steps that are then waited for; and the largest number of entries
# of the Gram matrix's derivatives in all weights: 512 MiB.
FEW_WEIGHTS, MANY_WEIGHTS = 50, 300
_WORTH_WAITING = 500
_MOST_ENTRIES = 2**26


class SolverChoice(NamedTuple):
    """A solver, and what a run does with it.

    **Attributes:** `name` and `reason`, which a trajectory's stats report; `min_growth`, `max_growth`: the least and largest
    factor from one step to the next; `anticipation`: how far the step size follows the trend of the errors (where stability
    limits the step, there is no trend to follow); `most_steps`: that are worth their time, None where only the run's own
    limit counts.
    """

    solver: diffrax.AbstractAdaptiveSolver
    name: str
    reason: str
    min_growth: float
    max_growth: float
    anticipation: float
    most_steps: int | None = None

    @property
    def needs_linearisation(self) -> bool:
        """Whether it takes a `LinearisedTerm`."""
        return self.solver.term_structure is LinearisedTerm


def check_solver(solver: Any) -> None:
    """**Raises:** `ConfigError` unless `solver` is "auto", a name in `solver_kinds` (the message has the nearest), or a
    Diffrax solver with an error estimate."""
    if isinstance(solver, str):
        if solver != "auto":
            look_up(solver, solver_kinds, "solver")
    elif not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise ConfigError(
            f"solver = {solver!r}; expected 'auto', one of {', '.join(solver_kinds)}, or a diffrax solver with an error "
            "estimate (gnflow chooses step sizes adaptively; for fixed steps use gnflow.iterate)."
        )


def choose_solver(
    solver: Any,
    linearised: bool,
    is_stiff: bool,
    rtol: float,
    stiffness: Callable[[], float | None],
    jacobian: tuple[int, int] | None = None,
    ran_out: bool = False,
    has_real_spectrum: bool = False,
    has_kinks: bool = False,
) -> SolverChoice:
    """The solver of a run.

    "auto" is the exponential solver for every flow with a linearisation, with four exceptions: a run that ends before the
    fastest mode has decayed by e^-10, where an explicit solver takes few steps and none needs a Gram matrix; few weights for
    more outputs, where the residual does not vanish, what the linearisation leaves out is stiff and the whole Jacobian is
    cheap; a flow that is not stiff asked for with a small `rtol` (a smaller one for models with kinks), where Dopri8's order
    pays (docs/devdocs/solvers.md, Work and precision); and a run whose usual solver has used up its steps, where up to 300
    weights are few enough.

    **Arguments:** `solver`: "auto", a name, or a Diffrax solver; `linearised`: whether the flow has a linearisation;
    `is_stiff`: whether its rates spread with the spectrum of the Gram matrix; `rtol`: of the run;
    `stiffness`: gives the largest rate times the length of the run, None where the end is not known or where an explicit
    step would need the Gram matrix too; `jacobian`: the numbers of weights P and of outputs NC where the flow has a derivative;
    None elsewhere; `ran_out`: whether the usual choice has used up its steps. Where there is no other, it stays;
    `has_real_spectrum`: whether the flow says so of its Jacobian; `has_kinks`: whether the model is known to have kinks.

    **Raises:** `ConfigError` as `check_solver` does, and for a solver that needs a linearisation, or a real spectrum, that the
    flow has not.
    """
    check_solver(solver)
    if solver == "auto":
        if not linearised:
            return _named("tsit5", "the flow has no linearisation")
        if ran_out and jacobian is not None and _is_affordable(*jacobian, MANY_WEIGHTS):
            reason = f"the usual solver used up its steps: the whole Jacobian of {jacobian[0]} weights"
            return _named("exponential_rosenbrock", reason)._replace(most_steps=_WORTH_WAITING)
        folds = stiffness()
        if folds is not None and folds <= _EXPLICIT_SPAN:
            return _named("tsit5", f"the fastest mode decays by no more than exp(-{folds:.2g}) in the run")
        if jacobian is not None and jacobian[0] < jacobian[1] and _is_affordable(*jacobian, FEW_WEIGHTS):
            return _named(
                "exponential_rosenbrock", f"{jacobian[0]} weights for more outputs: the whole Jacobian is cheap"
            )
        if not is_stiff and rtol <= (_TIGHT_RTOL_ON_KINKS if has_kinks else _TIGHT_RTOL):
            return _named("dopri8", "the flow is not stiff and the tolerance is tight")
        return _named("exponential", "no step size is limited by stiffness")
    if isinstance(solver, str):
        choice = _named(solver, "asked for")
    else:
        kinds = {kind: name for name, kind in solver_kinds.items()}
        name = kinds.get(type(solver), type(solver).__name__.lower())
        choice = _choice(solver, name, "asked for")
    if choice.needs_linearisation and not linearised:
        raise ConfigError(
            f"solver = {choice.name!r} needs a flow with a linearisation (an AbstractLinearisedFlow), which this one is not; "
            "use 'auto' or an explicit solver such as 'tsit5'."
        )
    if isinstance(choice.solver, StabilisedRungeKutta) and not has_real_spectrum:
        raise ConfigError(
            f"solver = {choice.name!r} needs a flow whose Jacobian has a real spectrum, such as gradient flow, and which says "
            "so (AbstractFlow.has_real_spectrum); this one does not: use 'auto', or an explicit solver such as 'tsit5'."
        )
    return choice


def stages_per_step(solver: diffrax.AbstractAdaptiveSolver) -> int | None:
    """Velocity evaluations a step takes, counting one that it shares with the step before; None where it is not fixed."""
    if isinstance(solver, ExponentialRungeKutta | ExponentialRosenbrock):
        return 4
    if not isinstance(solver, diffrax.AbstractERK) or not isinstance(solver.tableau, diffrax.ButcherTableau):
        return None
    return solver.tableau.num_stages - int(bool(solver.tableau.fsal))


def _is_affordable(weights: int, outputs: int, most: int) -> bool:
    """Whether the whole Jacobian of a velocity of P weights and NC outputs takes little enough time and memory."""
    return weights <= most and weights * outputs**2 <= _MOST_ENTRIES


def _named(name: str, reason: str) -> SolverChoice:
    return _choice(solver_kinds[name](), name, reason)


def _choice(solver: diffrax.AbstractAdaptiveSolver, name: str, reason: str) -> SolverChoice:
    if solver.term_structure is LinearisedTerm:
        # With the whole Jacobian the error rises and falls from step to step; to follow its trend costs rejections.
        anticipation = 0.0 if isinstance(solver, ExponentialRosenbrock) else _ANTICIPATION
        return SolverChoice(solver, name, reason, *_UNLIMITED_GROWTH, anticipation)
    if isinstance(solver, StabilisedRungeKutta):
        # Its error limits its steps, too; but the spectral radius that they were made for is soon out of date.
        return SolverChoice(solver, name, reason, *_LIMITED_GROWTH, _ANTICIPATION)
    return SolverChoice(solver, name, reason, *_LIMITED_GROWTH, 0.0)
