"""The weights of the first particles, for pictures of their motion."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import ModelError, integer_field
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable
from ._hidden_layer import hidden_layer

_SOURCE = "Chizat and Bach 2018; directions as in Arbel et al. 2023 (arXiv 2302.02904)"


class Particles(AbstractMetric):
    """Hidden and output weights u_i (d,) and v_i (C,) of the first particles of a two-layer network, without biases.

    Particles are drawn independently, so the first ones are a fair sample of all. Each saved time takes min(M, max_count) (d
    + C) numbers: 200 particles at d = 10 and 100 saved times are 1.8 MB in float64. If the teacher is a two-layer network
    too, its hidden weights are stored beside them, unchanged at every time.

    **Arguments:** `max_count`: the largest number of particles, an integer of at least 1.

    **Raises:** `ConfigError` for another `max_count`.

    Source: Chizat and Bach 2018 (training as the motion of particles).
    """

    max_count: int = integer_field("max_count", default=200, static=True)

    def variables(self, system: System) -> tuple[Variable, ...]:
        """The variables, with their dimensions.

        - `particle_hidden_weight`: "particle", "coordinate".
        - `particle_output_weight`: "particle", "output".
        - `teacher_hidden_weight`, if the teacher is a two-layer network: "teacher_unit", "coordinate".

        **Raises:** `ModelError` for a model that is not a two-layer network.
        """
        model = system.structure
        hidden_layer(model)
        if not hasattr(model, "output_weight"):
            raise ModelError(
                f"{type(model).__name__} has no output_weight (M, C), one row for each particle; Particles needs a two-layer "
                "network (MeanFieldNetwork, RandomFeatures)."
            )
        found = (
            Variable(
                "particle_hidden_weight", "hidden weight of a particle", "weights", _SOURCE, ("particle", "coordinate")
            ),
            Variable(
                "particle_output_weight", "output weight of a particle", "weights", _SOURCE, ("particle", "output")
            ),
        )
        if _teacher_weight(system) is None:
            return found
        teacher = Variable(
            "teacher_hidden_weight",
            "hidden weight of a unit of the teacher",
            "weights",
            _SOURCE,
            ("teacher_unit", "coordinate"),
        )
        return (*found, teacher)

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The present weights."""
        model = snapshot.model
        values = {
            "particle_hidden_weight": hidden_layer(model).hidden_weight[: self.max_count],
            "particle_output_weight": model.output_weight[: self.max_count],
        }
        teacher = _teacher_weight(snapshot.system)
        return values if teacher is None else {**values, "teacher_hidden_weight": teacher}


def _teacher_weight(system: System) -> Any:
    """The teacher's hidden weights (m, d), or None if it has none in the space of the particles."""
    try:
        weight = hidden_layer(system.problem.teacher).hidden_weight
    except ModelError:
        return None
    shape = np.shape(weight)
    return weight if len(shape) == 2 and shape[1:] == system.problem.input_shape else None
