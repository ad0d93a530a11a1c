"""How far the directions and lengths of the particles are spread."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable
from ._hidden_layer import hidden_layer


class ParticleSpread(AbstractMetric):
    """The norm-weighted standard deviation of the hidden weights, averaged over coordinates.

    With p_i = ||u_i||^2 / sum_k ||u_k||^2 and the weighted mean m = sum_i p_i u_i it is

        (1/d) sum_j sqrt(sum_i p_i (u_ij - m_j)^2),

    in the units of the weights, without biases. Long particles count more: it falls where they gather. It is nan if all
    particles are zero.

    Source: the released code of [A] (Arbel et al. 2023, arXiv 2302.02904), which calls it the variance of the weights.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`particle_spread`. **Raises:** `ModelError` for a model that is not a two-layer network."""
        hidden_layer(system.structure)
        reference = "Arbel et al. 2023 (arXiv 2302.02904), released code"
        return (Variable("particle_spread", "norm-weighted spread of the particles", "weights", reference),)

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The spread."""
        particles = hidden_layer(snapshot.model).hidden_weight
        squares = jnp.sum(particles**2, axis=1)
        shares = squares / jnp.sum(squares)
        centred = particles - (shares @ particles)[None, :]
        return {"particle_spread": jnp.mean(jnp.sqrt(shares @ centred**2))}
