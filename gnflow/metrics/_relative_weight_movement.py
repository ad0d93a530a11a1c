"""The movement of the weights relative to their initial norm."""

from jaxtyping import Array, Float, PyTree

from .._core import is_within, named_leaves, tree_norm, tree_subtract
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable, ratio

_NAME = "relative_weight_movement"


class RelativeWeightMovement(AbstractMetric):
    """||w_t - w_0|| / ||w_0||, for all trained weights and for each layer, dimensionless.

    Layers are the model's `weight_groups` ("hidden" and "output" for gnflow's networks); a model without them gets the total
    only. The denominator of a layer's movement is the norm of all initial weights, too:

        relative_weight_movement_<layer> = ||w_t[layer] - w_0[layer]|| / ||w_0||,

    because a layer may start at zero (the output weights of [A] do), for which a movement relative to itself is not defined.
    So the squares of the layers' movements add up to that of the total, and a layer that is not trained has movement 0. If all
    trained weights start at zero (random features with v = 0), the movement is 0 at the start and inf after it.
    Source: Chizat, Oyallon, Bach 2019 (lazy training: the movement vanishes).
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`relative_weight_movement` and `relative_weight_movement_<layer>`; defined for every model."""
        source = "Chizat, Oyallon, Bach 2019"
        return (
            Variable(_NAME, "relative movement of the weights", "1", source),
            *(
                Variable(f"{_NAME}_{layer}", f"movement of the {layer} layer relative to all weights", "1", source)
                for layer in _layers(system)
            ),
        )

    def prepare(self, start: Snapshot) -> PyTree:
        """w_0."""
        return start.weights

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The movements; 0 at the start."""
        movement = tree_subtract(snapshot.weights, memory)
        start = tree_norm(memory)
        moved = named_leaves(movement)
        values = {_NAME: ratio(tree_norm(movement), start)}
        for layer, prefixes in _layers(snapshot.system).items():
            leaves = [leaf for path, leaf in moved if any(is_within(path, prefix) for prefix in prefixes)]
            values[f"{_NAME}_{layer}"] = ratio(tree_norm(leaves), start)
        return values


def _layers(system: System) -> dict[str, tuple[str, ...]]:
    return getattr(system.structure, "weight_groups", {})
