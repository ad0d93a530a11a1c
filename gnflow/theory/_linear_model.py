"""Whether a model is linear in the weights that move."""

from jaxtyping import PyTree

from ..geometry import System
from ..models import MLP, Linearised, MeanFieldNetwork, RandomFeatures


def is_linear(system: System, weights: PyTree) -> bool:
    """Whether the model is known to be linear (affine) in its trained weights by its structure; False: not known."""
    structure = system.structure
    if isinstance(structure, RandomFeatures | Linearised):
        return True
    if isinstance(structure, MeanFieldNetwork):
        return weights.hidden_weight is None and weights.hidden_bias is None
    if isinstance(structure, MLP):
        return all(layer.weight is None and layer.bias is None for layer in weights.layers[:-1])
    return False
