"""The relative change of the NTK."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable, ratio


class RelativeNTKChange(AbstractMetric):
    """||A_t - A_0|| / ||A_0|| (Frobenius) of the NTK Gram matrices, dimensionless.

    It vanishes in the lazy regime: Chizat, Oyallon, Bach 2019; Lee et al. 2019 (arXiv 1902.06720), Theorem 2.1. If A_0 = 0, it
    is inf as soon as A has changed.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`relative_ntk_change`; defined for every model."""
        return (
            Variable(
                "relative_ntk_change",
                "relative change of the NTK",
                "1",
                "Chizat, Oyallon, Bach 2019; Lee et al. 2019 (arXiv 1902.06720)",
            ),
        )

    def prepare(self, start: Snapshot) -> PyTree:
        """A_0, (NC, NC)."""
        return start.gram

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The change; 0 at the start."""
        change = ratio(jnp.linalg.norm(snapshot.gram - memory), jnp.linalg.norm(memory))
        return {"relative_ntk_change": change}
