"""The choice that `solver="auto"` makes."""

import dataclasses
from collections.abc import Callable
from typing import Any

from .._core import ConfigError
from ..geometry import Decomposition
from ._kinds import Change, SolverChoice, asked_choice, check_solver, named_choice

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

# A linearisation that takes so few velocities, or so few operations (about a millisecond), is never what a run waits for.
_FEW_VELOCITIES, _FEW_OPERATIONS = 10.0, 2e7
# What an exponential step takes beside its linearisation, in velocities; the share of the whole at which it is tried in place
# of stabilised steps: it is of higher order, and all but exact where the Hessian of the loss and the kernel are constant; and
# the operations of a run that is worth a program more, about a second (docs/devdocs/solvers.md, Three tiers).
_OTHER_VELOCITIES, _SHARE, _SHARE_CONSTANT = 18.0, 0.5, 0.15
_WORTH_COMPILING = 1e10
# The same where a velocity decomposes the Gram matrix, too: what a step takes with its linearisation. And the velocities of a
# run that is worth a program more however small they are: they take their time without operations.
_VELOCITIES_WITH_GRAM, _MANY_VELOCITIES = 5.0, 500.0
# Operations of a velocity, from which on it is worth a program of its own to begin with steps of order 5.
_HEAVY_VELOCITY = 1e8
# Below it steps of order 2 are too short to be worth their stability.
_LEAST_STABILISED_RTOL = 1e-6


@dataclasses.dataclass(frozen=True)
class Situation:
    """What the choice of a solver depends on, beside the tolerance.

    **Attributes:** `linearised`: whether the flow has a linearisation; `is_stiff`: whether its rates spread with the spectrum
    of the Gram matrix; `has_real_spectrum`: whether the flow says so of its Jacobian; `has_kinks`: whether the model is known
    to have kinks; `has_constant_hessian`: whether the loss has; `num_outputs`: NC; `jacobian`: the numbers of weights P and of
    outputs NC where the flow has a derivative, None elsewhere; `stiffness`: gives the largest rate times the length of the run,
    None where the end is not known or where an explicit step would need the Gram matrix too; `velocity_work`,
    `linearisation_work`: give the operations of each (`count_operations`).
    """

    linearised: bool
    is_stiff: bool
    has_real_spectrum: bool
    has_kinks: bool
    has_constant_hessian: bool
    num_outputs: int
    jacobian: tuple[int, int] | None
    stiffness: Callable[[], float | None]
    velocity_work: Callable[[], float]
    linearisation_work: Callable[[], float]


def choose_solver(solver: Any, rtol: float, situation: Situation, ran_out: bool = False) -> SolverChoice:
    """The solver of a run.

    "auto" is, for a flow with a linearisation, the exponential solver, with five exceptions: a run that ends before the
    fastest mode has decayed by e^-10, where an explicit solver takes few steps and none needs a Gram matrix; a flow that is not
    stiff asked for with a small `rtol` (a smaller one for models with kinks), where Dopri8's order pays, until stability limits
    its steps all the same; a flow whose Jacobian has a real spectrum and whose linearisation
    takes much longer than a velocity, where the stabilised solver begins and the exponential one is tried where that pays (not
    where NC is beyond the dense limit), both behind Tsit5 where velocities are heavy; few weights for more outputs, where the
    residual does not vanish, what the linearisation leaves out is stiff and the whole Jacobian is cheap; and a run whose usual
    solver has used up its steps, where up to 300 weights are few enough (docs/devdocs/solvers.md). Work is counted, not timed:
    every machine and every run chooses the same.

    **Arguments:** `solver`: "auto", a name, or a Diffrax solver; `rtol`: of the run; `situation`; `ran_out`: whether the usual
    choice has used up its steps. Where there is no other, it stays.

    **Raises:** `ConfigError` as `check_solver` does, and for a solver that needs a linearisation, or a real spectrum, that the
    flow has not.
    """
    check_solver(solver)
    if not (isinstance(solver, str) and solver == "auto"):
        return _allowed(asked_choice(solver), situation)
    if not situation.linearised:
        return named_choice("tsit5", "the flow has no linearisation")
    jacobian = situation.jacobian
    if ran_out and jacobian is not None and _is_affordable(*jacobian, MANY_WEIGHTS):
        reason = f"the usual solver used up its steps: the whole Jacobian of {jacobian[0]} weights"
        return named_choice("exponential_rosenbrock", reason)._replace(most_steps=_WORTH_WAITING)
    folds = situation.stiffness()
    if folds is not None and folds <= _EXPLICIT_SPAN:
        return named_choice("tsit5", f"the fastest mode decays by no more than exp(-{folds:.2g}) in the run")
    if jacobian is not None and jacobian[0] < jacobian[1] and _is_affordable(*jacobian, FEW_WEIGHTS):
        return named_choice(
            "exponential_rosenbrock", f"{jacobian[0]} weights for more outputs: the whole Jacobian is cheap"
        )
    if not situation.is_stiff and rtol <= (_TIGHT_RTOL_ON_KINKS if situation.has_kinks else _TIGHT_RTOL):
        return _for_rates_of_one_size(situation)
    exponential = named_choice("exponential", "no step size is limited by stiffness")
    if not situation.has_real_spectrum or rtol < _LEAST_STABILISED_RTOL:
        return exponential
    velocity, linearisation = situation.velocity_work(), situation.linearisation_work()
    ratio = linearisation / velocity
    if linearisation <= _FEW_OPERATIONS or ratio <= _FEW_VELOCITIES:
        return exponential
    stabilised = named_choice("stabilised", f"a linearisation takes as long as {ratio:.2g} velocities")
    if Decomposition().is_dense(situation.num_outputs):
        taken = ratio + _OTHER_VELOCITIES
        successor = exponential._replace(reason=f"a step takes as long as {taken:.2g} velocities and gets farther")
        share = _SHARE_CONSTANT if situation.has_constant_hessian else _SHARE
        stabilised = stabilised._replace(change=Change(successor, _WORTH_COMPILING / velocity, taken, share))
    if velocity < _HEAVY_VELOCITY:
        return stabilised
    first = named_choice(
        "tsit5", "nothing is known of the end of the run, and stability does not limit its first steps"
    )
    return first._replace(change=Change(_behind_the_limit(stabilised), 0.0))


def _for_rates_of_one_size(situation: Situation) -> SolverChoice:
    """For a small tolerance. A damping that is large beside most of the spectrum makes the flow stiff: that shows along the
    run."""
    dopri8 = named_choice("dopri8", "the flow is not stiff and the tolerance is tight")
    if not Decomposition().is_dense(situation.num_outputs):
        return dopri8
    exponential = _behind_the_limit(named_choice("exponential", "no step size is limited by stiffness"))
    least = min(_WORTH_COMPILING / situation.velocity_work(), _MANY_VELOCITIES)
    return dopri8._replace(change=Change(exponential, least, _VELOCITIES_WITH_GRAM))


def _behind_the_limit(choice: SolverChoice) -> SolverChoice:
    """The same, for a run whose explicit steps stability limits."""
    return choice._replace(reason=f"stability limits explicit steps; {choice.reason}")


def _allowed(choice: SolverChoice, situation: Situation) -> SolverChoice:
    """The `choice`, refused where the flow has not what it needs."""
    if choice.needs_linearisation and not situation.linearised:
        raise ConfigError(
            f"solver = {choice.name!r} needs a flow with a linearisation (an AbstractLinearisedFlow), which this one is not; "
            "use 'auto' or an explicit solver such as 'tsit5'."
        )
    if choice.needs_real_spectrum and not situation.has_real_spectrum:
        raise ConfigError(
            f"solver = {choice.name!r} needs a flow whose Jacobian has a real spectrum, such as gradient flow, and which says "
            "so (AbstractFlow.has_real_spectrum); this one does not: use 'auto', or an explicit solver such as 'tsit5'."
        )
    return choice


def _is_affordable(weights: int, outputs: int, most: int) -> bool:
    """Whether the whole Jacobian of a velocity of P weights and NC outputs takes little enough time and memory."""
    return weights <= most and weights * outputs**2 <= _MOST_ENTRIES
