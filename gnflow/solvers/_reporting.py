"""Solvers that say more of their steps than their error."""

import abc
from typing import Any, ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PyTree


class StepReport(eqx.Module):
    """What a step took, and how long the next one may be.

    **Attributes:** `num_velocities`, `num_products`: evaluations of the velocity, and products with its Jacobian; `longest`:
    the flow time that the next step may take at most; `is_limited`: whether stability, and not the error, has limited the last
    few steps.
    """

    num_velocities: Int[Array, ""]
    num_products: Int[Array, ""]
    longest: Float[Array, ""]
    is_limited: Bool[Array, ""]


class AbstractReportingSolver(diffrax.AbstractAdaptiveSolver):
    """A solver whose steps take different numbers of velocities, or are limited by something else than their error.

    **Attributes:** `needs_real_spectrum`: whether the flow's Jacobian has to have one (`AbstractFlow.has_real_spectrum`);
    `anticipation`: how far a step size may follow the trend of the errors (`SolverChoice.anticipation`).
    """

    needs_real_spectrum: ClassVar[bool] = False
    anticipation: ClassVar[float] = 0.0

    @abc.abstractmethod
    def report(self, solver_state: Any) -> StepReport:
        """On the step that returned `solver_state`, accepted or not."""

    @abc.abstractmethod
    def last_velocity(self, solver_state: Any) -> PyTree | None:
        """The vector field at the end of that step, like the state; None where the step does not end with it."""

    @abc.abstractmethod
    def stats(self, solver_state: Any) -> dict[str, int | float]:
        """What else is known at the end of a run, by name."""

    @abc.abstractmethod
    def doubts(self, solver_state: Any) -> str:
        """A sentence on what may have made the steps of a run short, with the remedy; empty where nothing is known."""
