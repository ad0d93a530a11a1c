"""The angle by which the NTK has turned."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable


class KernelDistance(AbstractMetric):
    """1 - <A_t, A_0> / (||A_t|| ||A_0||) (Frobenius) of the NTK Gram matrices: between 0 and 1, dimensionless.

    It does not depend on the scale of A (`RelativeNTKChange` does). It is computed as || A_t/||A_t|| - A_0/||A_0|| ||^2 / 2,
    which is the same number and loses no digits when it is small. It is nan if a Gram matrix is zero.
    Source: Fort et al. 2020, "Deep learning versus kernel learning".
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`kernel_distance`; defined for every model."""
        return (Variable("kernel_distance", "kernel distance to the start", "1", "Fort et al. 2020"),)

    def prepare(self, start: Snapshot) -> PyTree:
        """A_0, (NC, NC)."""
        return start.gram

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The distance; 0 at the start."""
        turn = snapshot.gram / jnp.linalg.norm(snapshot.gram) - memory / jnp.linalg.norm(memory)
        return {"kernel_distance": 0.5 * jnp.sum(turn**2)}
