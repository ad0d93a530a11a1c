"""The speed of the NTK."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable


class NTKVelocity(AbstractMetric):
    """||dA/dt||, Frobenius, of the NTK Gram matrix along the flow, in outputs^2/weights^2 per unit of flow time.

    It is the exact derivative in the direction w', by forward mode, not a difference quotient.
    Source: Fort et al. 2020, "Deep learning versus kernel learning" (kernel velocity, there without the scale).
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`ntk_velocity`; defined for every model."""
        return (Variable("ntk_velocity", "speed of the NTK", "outputs^2/(weights^2 time)", "Fort et al. 2020"),)

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The speed at this state."""
        return {"ntk_velocity": jnp.linalg.norm(snapshot.gram_velocity())}
