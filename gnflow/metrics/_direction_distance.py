"""The weighted direction distance of [A]: feature movement and feature recovery."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._core import DataError, ModelError, look_up
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable
from ._hidden_layer import hidden_layer

_REFERENCES = {"initial": "the initial particles", "teacher": "the teacher's units"}

# Bytes of cosines that are held at once.
_CHUNK_BYTES = 2 * 2**20


class DirectionDistance(AbstractMetric):
    """d = sum_i p_i min_j sqrt(2 (1 - cos(u_i, r_j))), p_i = ||u_i||^2 / sum_k ||u_k||^2.

    The distance is between 0 and 2, dimensionless. The u_i are the first-layer weights of the particles of a two-layer network,
    without biases. See `direction_distance` for its accuracy and for weights of norm zero.

    **Arguments:** `reference`: the r_j: "initial" for the particles at the start (feature movement), "teacher" for the hidden
    weights of `problem.teacher` (feature recovery).

    **Raises:** `ConfigError` for another reference.

    Source: [A] Arbel et al. 2023, arXiv 2302.02904, experiments; the released code's "direction distance".
    """

    reference: str = eqx.field(static=True, default="initial")

    def __check_init__(self):
        look_up(self.reference, _REFERENCES, "reference of DirectionDistance")

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`direction_distance_to_initial` or `direction_distance_to_teacher`.

        **Raises:** `ModelError` for a model that is not a two-layer network. With the reference "teacher" `DataError` if the
        problem has no teacher, or if its hidden weights (m, d) are missing or all zero.
        """
        hidden_layer(system.structure)
        if self.reference == "teacher":
            check_teacher(system, 'DirectionDistance("teacher")')
        what = f"weighted direction distance to {_REFERENCES[self.reference]}"
        return (Variable(self._name, what, "1", "Arbel et al. 2023 (arXiv 2302.02904), experiments"),)

    def prepare(self, start: Snapshot) -> PyTree:
        """The reference directions r_j, (m, d)."""
        model = start.model if self.reference == "initial" else start.system.problem.teacher
        return hidden_layer(model).hidden_weight

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The distance; 0 at the start for the reference "initial"."""
        return {self._name: direction_distance(hidden_layer(snapshot.model).hidden_weight, memory)}

    @property
    def _name(self) -> str:
        return f"direction_distance_to_{self.reference}"


def direction_distance(
    particles: Float[Array, "width input_dim"], reference: Float[Array, "references input_dim"]
) -> Float[Array, ""]:
    """sum_i p_i min_j sqrt(2 (1 - cos(u_i, r_j))), p_i = ||u_i||^2 / sum_k ||u_k||^2: a scalar between 0 and 2.

    The square root, which would lose half of the digits near zero, is computed as the chord || u_i/||u_i|| - r_j/||r_j|| || to
    the nearest r_j, which is the same number. A particle of norm zero has weight 0. A reference of norm zero has no direction
    and is never the nearest. The result is nan if no particle, or no reference, has a direction. Time O(M m d), memory
    O((M + m) d).

    **Arguments:**

    - `particles`: u (M, d).
    - `reference`: r (m, d).

    Source: [A] Arbel et al. 2023, arXiv 2302.02904, experiments.
    """
    units, lengths = _directions(particles)
    reference_units, reference_lengths = _directions(reference)
    present: Bool[Array, " references"] = reference_lengths > 0

    def chord(unit: Float[Array, " input_dim"]) -> Float[Array, ""]:
        # The nearest unit vector is the one with the largest cosine.
        nearest = jnp.argmax(jnp.where(present, reference_units @ unit, -jnp.inf))
        return jnp.linalg.norm(unit - reference_units[nearest])

    chunk = max(1, _CHUNK_BYTES // (8 * reference.shape[0]))
    chords = jax.lax.map(chord, units, batch_size=min(chunk, units.shape[0]))
    mean = jnp.sum(lengths**2 * chords) / jnp.sum(lengths**2)
    return jnp.where(jnp.any(present), mean, jnp.nan)


def direction_distance_to_previous(
    particles: Float[Array, "saves width input_dim"],
) -> Float[Array, " saves"]:
    """The direction distance of each save's particles to those of the save before it, (T,); 0 at the first.

    It shows when features turn: a large one is a save between which particles found other directions. It depends on how
    far apart the saves are.

    **Arguments:** `particles`: u (T, M, d), such as `trajectory.data["particle_hidden_weight"]`, from the metric `Particles`
    with a `max_count` of at least M.

    Source: the released code of [A] (Arbel et al. 2023, arXiv 2302.02904), its distance to the weights of the last save.
    """
    particles = jnp.asarray(particles)
    later = jax.lax.map(lambda pair: direction_distance(*pair), (particles[1:], particles[:-1]))
    return jnp.concatenate([jnp.zeros(1), later])


def _directions(
    vectors: Float[Array, "count input_dim"],
) -> tuple[Float[Array, "count input_dim"], Float[Array, " count"]]:
    lengths = jnp.linalg.norm(vectors, axis=1)
    return vectors / jnp.where(lengths > 0, lengths, 1.0)[:, None], lengths


def check_teacher(system: System, metric: str) -> None:
    """Check that the problem has a two-layer teacher for the same inputs. **Raises:** `DataError`."""
    teacher, input_dim = system.problem.teacher, system.problem.input_dim
    if teacher is None:
        raise DataError(
            f"{metric} needs the teacher, but the problem has none; make it with "
            'problems.teacher_student, pass Problem(..., teacher=model), or take the reference "initial".'
        )
    try:
        weight = np.asarray(hidden_layer(teacher).hidden_weight)
    except ModelError as error:
        raise DataError(f"{metric} cannot use this teacher: {error}") from error
    if weight.ndim != 2 or weight.shape[1] != input_dim or not np.any(weight):
        raise DataError(
            f"the teacher's hidden_weight has shape {weight.shape} and {np.count_nonzero(weight)} nonzero entries; "
            f"expected (m, {input_dim}), the inputs' dimension, with a direction to compare with."
        )
