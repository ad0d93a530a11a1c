"""How well the flow's direction was solved for."""

import dataclasses
from typing import ClassVar

from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable

_SOURCE = "gnflow.geometry.SolveDiagnostics"


class DirectionDiagnostics(AbstractMetric):
    """Damping, numerical rank and relative residual of the solve for the direction at the saved state.

    Beside them what only some solves have: `kept`, `truncated`, `iterations`, `duality_gap`, `relative_duality_gap`, and for
    each half-block of a reversible network `half_block_rank` and `half_block_residual`.

    A flow that solves for nothing (gradient flow) has none of them. `iterate` on all samples always records them, since
    its steps take these very solves (in mini-batches it records those of the batches, `batch_rank` and so on); in
    `simulate` each saved time costs one more solve, so there they are recorded where this metric is asked for, and for the
    end of the run in `trajectory.stats`.
    """

    may_omit: ClassVar[bool] = True

    def variables(self, system: System) -> tuple[Variable, ...]:
        """All that a solve may have; `evaluate` gives those that the flow's solve has."""
        return (
            Variable("damping", "damping eps", "eigenvalues of H A", _SOURCE),
            Variable("rank", "numerical rank of the solve", "1", _SOURCE),
            Variable("relative_residual", "relative residual of the solve", "1", _SOURCE),
            Variable("kept", "number of modes that the direction is made of", "1", _SOURCE),
            Variable("truncated", "whether the direction is truncated (1) or exact (0)", "1", _SOURCE),
            Variable("iterations", "iterations of the solve", "1", _SOURCE),
            Variable("duality_gap", "duality gap of the solve", "loss", _SOURCE),
            Variable("relative_duality_gap", "duality gap over the most the model can fall by", "1", _SOURCE),
            Variable("half_block_rank", "rank of the half-block's solve", "1", _SOURCE, ("half_block",)),
            Variable(
                "half_block_residual", "relative residual of the half-block's solve", "1", _SOURCE, ("half_block",)
            ),
        )

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The numbers that the solve has; nothing for a flow that solves for nothing."""
        diagnostics = snapshot.diagnostics
        if diagnostics is None:
            return {}
        values = {field.name: getattr(diagnostics, field.name) for field in dataclasses.fields(diagnostics)}
        return {name: value.astype(float) for name, value in values.items() if value is not None and name != "success"}
