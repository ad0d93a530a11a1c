"""Solvers that report more about their steps than the error."""

import abc
from typing import Any, ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PyTree


class StepReport(eqx.Module):
    """The cost of a step, and limits on the next one.

    **Attributes:**

    - `num_velocities`, `num_products`: the number of velocities, and of products with their Jacobian.
    - `longest`: the longest next step, in flow time.
    - `is_limited`: whether stability, and not the error, has limited the last few steps.
    """

    num_velocities: Int[Array, ""]
    num_products: Int[Array, ""]
    longest: Float[Array, ""]
    is_limited: Bool[Array, ""]


class AbstractReportingSolver(diffrax.AbstractAdaptiveSolver):
    """A solver whose steps take different numbers of velocities, or that something else than the error may limit.

    **Attributes:**

    - `needs_real_spectrum`: whether the flow's Jacobian must have a real spectrum (`AbstractFlow.has_real_spectrum`).
    - `anticipation`: how far a step size may follow the trend of the errors (`SolverChoice.anticipation`).
    """

    needs_real_spectrum: ClassVar[bool] = False
    anticipation: ClassVar[float] = 0.0

    @abc.abstractmethod
    def report(self, solver_state: Any) -> StepReport:
        """The report on the step that returned `solver_state`, accepted or not."""

    @abc.abstractmethod
    def last_velocity(self, solver_state: Any) -> PyTree | None:
        """The vector field at the end of that step, like the state; None if the step does not compute it."""

    @abc.abstractmethod
    def stats(self, solver_state: Any) -> dict[str, int | float]:
        """Further stats at the end of a run, by name."""

    @abc.abstractmethod
    def doubts(self, solver_state: Any) -> str:
        """A sentence on what may have made the steps of a run short, with the remedy; empty if nothing is known."""
