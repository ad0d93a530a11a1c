"""The quality of the solve for the flow's direction."""

import dataclasses
from typing import ClassVar

from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable

_SOURCE = "gnflow.geometry.SolveDiagnostics"


class DirectionDiagnostics(AbstractMetric):
    """Damping, numerical rank and relative residual of the solve for the direction at the saved state.

    Some solves also have `kept`, `truncated`, `iterations`, `duality_gap`, `relative_duality_gap`, and, for each half-block of
    a reversible network, `half_block_rank`, `half_block_residual` and `half_block_damping`. A flow whose law is known
    (`AbstractFlow.gain`) also has `distance_to_gradient_flow`: how far damping leaves it from gradient flow. A flow without a
    solve (gradient flow) has none of these variables.

    `iterate` on all samples always records them, because its steps make these solves anyway. (With mini-batches it records
    those of the batches, `batch_rank` and so on.) `simulate` needs one more solve for each saved time. So it records them
    only if this metric is asked for; those of the end of the run are in `trajectory.stats`.
    """

    may_omit: ClassVar[bool] = True

    def variables(self, system: System) -> tuple[Variable, ...]:
        """All variables that a solve may have; `evaluate` returns those of the flow's solve."""
        return (
            Variable("damping", "damping eps", "eigenvalues of H A", _SOURCE),
            Variable("rank", "numerical rank of the solve", "1", _SOURCE),
            Variable("relative_residual", "relative residual of the solve", "1", _SOURCE),
            Variable("kept", "number of modes that the direction is made of", "1", _SOURCE),
            Variable("truncated", "whether the direction is truncated (1) or exact (0)", "1", _SOURCE),
            Variable("iterations", "iterations of the solve", "1", _SOURCE),
            Variable("duality_gap", "duality gap of the solve", "loss", _SOURCE),
            Variable("relative_duality_gap", "duality gap over the most the model can fall by", "1", _SOURCE),
            Variable(
                "distance_to_gradient_flow",
                "relative distance of the velocity to that of gradient flow on the clock of the damping",
                "1",
                "docs/theory.md, Damping and gradient flow",
            ),
            Variable("half_block_rank", "rank of the half-block's solve", "1", _SOURCE, ("half_block",)),
            Variable(
                "half_block_residual", "relative residual of the half-block's solve", "1", _SOURCE, ("half_block",)
            ),
            Variable(
                "half_block_damping",
                "damping eps of the half-block",
                "eigenvalues of the features' Gram matrix",
                _SOURCE,
                ("half_block",),
            ),
        )

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The numbers of the solve; none for a flow without one."""
        diagnostics = snapshot.diagnostics
        if diagnostics is None:
            return {}
        values = {field.name: getattr(diagnostics, field.name) for field in dataclasses.fields(diagnostics)}
        return {name: value.astype(float) for name, value in values.items() if value is not None and name != "success"}
