"""The first particles themselves, for pictures of how they move."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import ModelError, integer_field
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable
from ._hidden_layer import hidden_layer

_SOURCE = "Chizat and Bach 2018; directions as in Arbel et al. 2023 (arXiv 2302.02904)"


class Particles(AbstractMetric):
    """Hidden and output weights of the first particles of a two-layer network, u_i (d,) and v_i (C,), biases left out.

    Particles are drawn independently, so that the first ones are a fair sample of all. Each saved time takes min(M,
    max_count) (d + C) numbers, where other metrics take one: 200 particles at d = 10 and 100 saved times are 1.8 MB in
    float64. A teacher that is a two-layer network too is kept beside them, unchanged at every time.

    **Arguments:** `max_count`: at most so many particles, an integer of at least 1.

    **Raises:** `ConfigError` for another `max_count`.

    Source: Chizat and Bach 2018 (training as the motion of particles).
    """

    max_count: int = integer_field("max_count", default=200, static=True)

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`particle_hidden_weight` over "particle" and "coordinate", `particle_output_weight` over "particle" and "output";
        with such a teacher `teacher_hidden_weight` over "teacher_unit" and "coordinate".

        **Raises:** `ModelError` for a model that is no two-layer network.
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
        """The weights as they are now."""
        model = snapshot.model
        values = {
            "particle_hidden_weight": hidden_layer(model).hidden_weight[: self.max_count],
            "particle_output_weight": model.output_weight[: self.max_count],
        }
        teacher = _teacher_weight(snapshot.system)
        return values if teacher is None else {**values, "teacher_hidden_weight": teacher}


def _teacher_weight(system: System) -> Any:
    """The teacher's hidden weights (m, d), or None where it has none that live in the space of the particles."""
    try:
        weight = hidden_layer(system.problem.teacher).hidden_weight
    except ModelError:
        return None
    shape = np.shape(weight)
    return weight if len(shape) == 2 and shape[1] == system.problem.input_dim else None
