"""How well the flow's direction was solved for."""

from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable

_SOURCE = "gnflow.geometry.SolveDiagnostics"


class DirectionDiagnostics(AbstractMetric):
    """Damping, numerical rank and relative residual of the solve for the direction at the saved state.

    A flow that solves for nothing (gradient flow) has none of them. `iterate` always records them, since its steps take
    these very solves; in `simulate` each saved time costs one more solve, so there they are recorded where this metric
    is asked for, and for the end of the run in `trajectory.stats`.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`damping`, `rank`, `relative_residual`."""
        return (
            Variable("damping", "damping eps", "eigenvalues of H A", _SOURCE),
            Variable("rank", "numerical rank of the solve", "1", _SOURCE),
            Variable("relative_residual", "relative residual of the solve", "1", _SOURCE),
        )

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The three numbers, or nothing for a flow that solves for nothing."""
        diagnostics = snapshot.diagnostics
        if diagnostics is None:
            return {}
        return {
            "damping": diagnostics.damping,
            "rank": diagnostics.rank.astype(float),
            "relative_residual": diagnostics.relative_residual,
        }
