"""The choice that `solver="auto"` makes."""

import dataclasses
from collections.abc import Callable
from typing import Any

from .._core import ConfigError
from ..geometry import Decomposition
from ._kinds import Change, SolverChoice, asked_choice, check_solver, named_choice

# At smaller tolerances Dopri8 reaches the same error in less time on Gauss-Newton flows (docs/devdocs/solvers.md).
_TIGHT_RTOL = 1e-4
# With kinks a high order pays less, because every step across a kink is cut. The value lies below the tolerances of second
# solutions.
_TIGHT_RTOL_ON_KINKS = 5e-6

# Largest rate of the fastest mode times length of the run for which Tsit5 is stable in a handful of steps.
_EXPLICIT_SPAN = 10.0

# Number of weights up to which the whole Jacobian is worth its time (docs/devdocs/solvers.md, Few weights): from the start, and
# after the low-rank solver has used up its steps, then for at most _WORTH_WAITING steps.
FEW_WEIGHTS, MANY_WEIGHTS = 50, 300
_WORTH_WAITING = 500
# Entries of the derivatives of the Gram matrix in all weights: 512 MiB.
_MOST_ENTRIES = 2**26

# A linearisation that costs at most so many velocities, or so many operations (about a millisecond), never slows a run down.
_FEW_VELOCITIES, _FEW_OPERATIONS = 10.0, 2e7
# The cost of an exponential step without its linearisation, in velocities.
_OTHER_VELOCITIES = 18.0
# The share of an exponential step's cost at which it is tried in the place of a stabilised step. The share is below 1 because
# the exponential step has the higher order, and smaller still if the Hessian of the loss is constant, because it is then nearly
# exact as long as the kernel changes little.
_SHARE, _SHARE_CONSTANT = 0.5, 0.15
# The operations (about a second) after which another program is worth its compilation (docs/devdocs/solvers.md, Three tiers).
_WORTH_COMPILING = 1e10
# The cost of an exponential step in velocities if each velocity decomposes the Gram matrix, too.
_VELOCITIES_WITH_GRAM = 5.0
# The number of velocities after which another program is worth its compilation even if a velocity has few operations, because
# each takes some time regardless of its operations.
_MANY_VELOCITIES = 500.0
# Operations of a velocity above which a separate program for first steps of order 5 pays.
_HEAVY_VELOCITY = 1e8
# At smaller tolerances the steps of order 2 are so short that their stability is of no use.
_LEAST_STABILISED_RTOL = 1e-6


@dataclasses.dataclass(frozen=True)
class Situation:
    """What the choice of a solver depends on beside the tolerance.

    **Attributes:**

    - `linearised`: whether the flow has a linearisation.
    - `is_stiff`: whether its rates spread like the spectrum of the Gram matrix.
    - `has_real_spectrum`: whether the flow declares that its Jacobian has a real spectrum.
    - `has_kinks`: whether the model is known to have kinks; None if that is not known.
    - `has_constant_hessian`: whether the loss has a constant Hessian.
    - `num_outputs`: NC.
    - `jacobian`: the number P of weights and NC of outputs, or None for a flow without a derivative.
    - `stiffness`: returns the largest rate times the length of the run, or None if the end is not known or an explicit step
      would need the Gram matrix, too.
    - `velocity_work`, `linearisation_work`: return the number of operations of each (`count_operations`).
    """

    linearised: bool
    is_stiff: bool
    has_real_spectrum: bool
    has_kinks: bool | None
    has_constant_hessian: bool
    num_outputs: int
    jacobian: tuple[int, int] | None
    stiffness: Callable[[], float | None]
    velocity_work: Callable[[], float]
    linearisation_work: Callable[[], float]


def choose_solver(solver: Any, rtol: float, situation: Situation, ran_out: bool = False) -> SolverChoice:
    """The solver of a run.

    For a flow with a linearisation "auto" is the exponential solver, with five exceptions:

    - In a run that ends before the fastest mode has decayed by e^-10 an explicit solver takes few steps, none of which needs a
      Gram matrix.
    - For a flow that is not stiff an explicit solver begins, until stability limits its steps after all: Tsit5, or Dopri8 where
      a small `rtol` (a smaller one for models with kinks) makes its order pay.
    - If the Jacobian has a real spectrum and a linearisation takes much longer than a velocity, the stabilised solver begins.
      The exponential one is tried where it pays (but not for NC above the dense limit). If velocities are heavy, or the model
      may have kinks, Tsit5 comes before both.
    - With few weights for more outputs the residual does not vanish, so that the part of the Jacobian outside of the
      linearisation is stiff, while the whole Jacobian is cheap.
    - After the usual solver has used up its steps, the whole Jacobian is used for up to 300 weights.

    See docs/devdocs/solvers.md. Work is counted and not timed, so every machine and every run makes the same choice.

    **Arguments:**

    - `solver`: "auto", a name, or a Diffrax solver.
    - `rtol`: the tolerance of the run.
    - `situation`: what else the choice depends on.
    - `ran_out`: whether the usual choice has used up its steps. If there is no other choice, it stays.

    **Raises:** the `ConfigError` of `check_solver`; also `ConfigError` for a solver that needs a linearisation or a real
    spectrum if the flow does not have it.
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
    if not situation.is_stiff:
        return _for_rates_of_one_size(situation, rtol)
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
    if velocity >= _HEAVY_VELOCITY:
        reason = "nothing is known of the end of the run, and stability does not limit its first steps"
    elif situation.has_kinks is not False:
        # Across kinks the error limits the steps, those of order 2 the most (docs/devdocs/solvers.md, Convolutions).
        reason = "the model may have kinks, which limit the steps of a method of order 2 long before stability does"
    else:
        return stabilised
    first = named_choice("tsit5", reason)
    return first._replace(change=Change(_behind_the_limit(stabilised), 0.0))


def _for_rates_of_one_size(situation: Situation, rtol: float) -> SolverChoice:
    """The choice for a flow that is not stiff. An exponential step would take as long as an explicit one and not get farther.

    A damping above most of the spectrum makes such a flow stiff after all, which shows only along the run.
    """
    if rtol <= (_TIGHT_RTOL_ON_KINKS if situation.has_kinks else _TIGHT_RTOL):
        explicit = named_choice("dopri8", "the flow is not stiff and the tolerance is tight")
    else:
        explicit = named_choice("tsit5", "the flow is not stiff")
    if not Decomposition().is_dense(situation.num_outputs):
        return explicit
    exponential = _behind_the_limit(named_choice("exponential", "no step size is limited by stiffness"))
    least = min(_WORTH_COMPILING / situation.velocity_work(), _MANY_VELOCITIES)
    return explicit._replace(change=Change(exponential, least, _VELOCITIES_WITH_GRAM))


def _behind_the_limit(choice: SolverChoice) -> SolverChoice:
    """`choice` with the reason that stability limits the explicit steps of the run."""
    return choice._replace(reason=f"stability limits explicit steps; {choice.reason}")


def _allowed(choice: SolverChoice, situation: Situation) -> SolverChoice:
    """The `choice`, if the flow has what it needs. **Raises:** `ConfigError` otherwise."""
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
    """Whether the whole Jacobian of a velocity takes little enough time and memory, for P `weights` and NC `outputs`."""
    return weights <= most and weights * outputs**2 <= _MOST_ENTRIES
