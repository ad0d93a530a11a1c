"""The distance that the weights have travelled."""

from jaxtyping import Array, Float, PyTree

from .._core import tree_norm
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable


class PathLength(AbstractMetric):
    """int_0^t ||w'|| dt, the length of the weights' path, in units of the weights. It is at least ||w_t - w_0||."""

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`path_length`."""
        return (Variable("path_length", "path length of the weights", "weights", "docs/theory.md, Metrics"),)

    def integrands(self, velocity: PyTree) -> dict[str, Float[Array, ""]]:
        """||w'||."""
        return {"path_length": tree_norm(velocity)}

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The integral up to this time."""
        return {"path_length": snapshot.integrals["path_length"]}
