"""The Grassmann distance between the subspaces of inputs that two first layers look at."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError, DataError, integer_field, look_up
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable
from ._direction_distance import check_teacher
from ._hidden_layer import hidden_layer

_REFERENCES = {"teacher": "the teacher's units", "initial": "the initial particles"}


class SubspaceDistance(AbstractMetric):
    """The Grassmann distance between two feature subspaces of the inputs: sqrt(sum_k theta_k^2), theta_k the principal angles.

    The feature subspace of hidden weights U (M, d) is spanned by their r leading right singular vectors, the directions of
    which sum_i u_i u_i^T has most. The distance is in radians, from 0 to (pi/2) sqrt(r), and 0 where the two are the same.
    Unlike `DirectionDistance` it does not depend on which particle looks where.

    **Arguments:**

    - `reference`: "teacher" for the hidden weights of `problem.teacher`, or "initial" for the particles at the start.
    - `rank`: r, below d. None takes the number of the teacher's units; it must be given for the reference "initial", because
      all directions of d particles or more are the whole space.

    **Raises:** `ConfigError` for another reference or rank.

    Source: the released code of [A] (Arbel et al. 2023, arXiv 2302.02904), where both subspaces have all directions whose
    singular values are not negligible.
    """

    reference: str = eqx.field(static=True, default="teacher")
    rank: int | None = integer_field("rank", default=None, static=True, least=1)

    def __check_init__(self):
        look_up(self.reference, _REFERENCES, "reference of SubspaceDistance")
        if self.reference == "initial" and self.rank is None:
            raise ConfigError(
                'SubspaceDistance("initial") has no rank; expected the number of leading directions, such as the width of the '
                "teacher: all directions of many particles are the whole space."
            )

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`subspace_distance_to_teacher` or `subspace_distance_to_initial`.

        **Raises:** `ModelError` for a model that is not a two-layer network. `DataError` for the reference "teacher" if the
        problem has no teacher with hidden weights (m, d), and for a rank that is not below d.
        """
        hidden_layer(system.structure)
        if self.reference == "teacher":
            check_teacher(system, f"SubspaceDistance({self.reference!r})")
        rank, input_dim = self._rank(system), system.problem.input_dim
        if rank >= input_dim:
            raise DataError(
                f"SubspaceDistance compares {rank} directions of {input_dim} dimensions, which are the whole space; expected a "
                f"rank below {input_dim}, such as SubspaceDistance({self.reference!r}, rank={max(1, input_dim - 1)})."
            )
        what = f"Grassmann distance of the leading {rank} directions to {_REFERENCES[self.reference]}"
        return (Variable(self._name, what, "radians", "Arbel et al. 2023 (arXiv 2302.02904), released code"),)

    def prepare(self, start: Snapshot) -> PyTree:
        """An orthonormal basis (d, r) of the reference's subspace."""
        model = start.model if self.reference == "initial" else start.system.problem.teacher
        return _basis(hidden_layer(model).hidden_weight, self._rank(start.system))

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The distance."""
        basis = _basis(hidden_layer(snapshot.model).hidden_weight, self._rank(snapshot.system))
        return {self._name: jnp.linalg.norm(principal_angles(basis, memory))}

    @property
    def _name(self) -> str:
        return f"subspace_distance_to_{self.reference}"

    def _rank(self, system: System) -> int:
        return len(hidden_layer(system.problem.teacher).hidden_weight) if self.rank is None else self.rank


def _basis(weight: Float[Array, "rows input_dim"], rank: int) -> Float[Array, "input_dim rank"]:
    """The leading right singular vectors. **Raises:** `DataError` if there are fewer."""
    if rank > weight.shape[0]:
        raise DataError(
            f"SubspaceDistance compares {rank} directions, but a network has {weight.shape[0]} units; lower the rank."
        )
    return jnp.linalg.svd(weight, full_matrices=False)[2][:rank].T


def principal_angles(left: Float[Array, "dim rank"], right: Float[Array, "dim rank"]) -> Float[Array, " rank"]:
    """The angles, ascending, between the spans of two orthonormal bases; exact to rounding near 0 and near pi/2.

    Small angles come from their sines, large ones from their cosines (Bjorck and Golub 1973, as in
    `scipy.linalg.subspace_angles`).
    """
    overlap = left.T @ right
    cosines = jnp.clip(jnp.linalg.svd(overlap, compute_uv=False), 0.0, 1.0)
    sines = jnp.clip(jnp.linalg.svd(right - left @ overlap, compute_uv=False)[::-1], 0.0, 1.0)
    return jnp.where(cosines**2 >= 0.5, jnp.arcsin(sines), jnp.arccos(cosines))
