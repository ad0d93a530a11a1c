"""Estimate the memory that a cell needs, before it runs."""

import math

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._core import GnflowError, operations, tree_size
from ..config import RunSpec
from ..geometry import GenericTangent, System
from ..geometry._generic import MOST_BYTES_OF_ROWS

_GIB = 2**30
BASE_GIB = 0.8  # a worker with JAX and its compiled programs
# The number of float64 arrays alive at the peak of a run, by shape (experiments/benchmarks/sweep_engine.py measures processes).
_OF_FEATURES = 5  # training and test samples x hidden units: activations, their derivatives, products with these
_OF_KERNEL = 12  # (N C)^2: Gram matrices, their eigenvectors, the workspace of the eigensolver
_OF_ROWS = 2  # the rows of J of a model without a closed form, as they come and as they are multiplied
_OF_WEIGHTS = 30  # like the weights: stages of a step, the start, memories of metrics
_PRODUCTS = ("dot_general", "conv_general_dilated")


def estimated_memory_gib(spec: RunSpec) -> float:
    """The peak memory in GiB that a cell adds to a worker (`BASE_GIB`), from the shapes of its problem and model.

    With N training and n other samples, C outputs, U hidden units (counted on both sides of a layer; at least the results of
    products and convolutions for one sample) and P weights it is 8 bytes times 5 (N + n) U + 12 (N C)^2 + 30 P. A model without
    a closed form of its tangent needs its rows, N C P numbers up to 1 GiB, twice. The estimate is rather too high: 1.5 to 12
    times what was measured (docs/devdocs/sweeps.md), with the smallest ratio for the largest arrays. It is 0 for a cell that
    cannot be prepared, which will fail at once.
    """
    try:
        made = spec.prepare()
    except (GnflowError, ArithmeticError, MemoryError):
        return 0.0
    system = made.flow.system(made.problem, made.model)
    problem, moving = system.problem, system.weights(made.model)
    others = sum(len(x) for x in (problem.x_validation, problem.x_test) if x is not None)
    arrays = [leaf for leaf in jax.tree.leaves(made.model) if hasattr(leaf, "ndim")]
    results = sum(math.prod(shape) for name, shape in operations(system.outputs, moving) if name in _PRODUCTS)
    units = max(sum(leaf.shape[0] for leaf in arrays if leaf.ndim == 2), results / problem.num_train)
    weights, outputs = sum(leaf.size for leaf in arrays), problem.y_train.size
    numbers = _OF_FEATURES * (problem.num_train + others) * units + _OF_KERNEL * outputs**2 + _OF_WEIGHTS * weights
    rows = _OF_ROWS * min(8 * outputs * tree_size(moving), MOST_BYTES_OF_ROWS) if _is_generic(system, moving) else 0
    return (8 * numbers + rows) / _GIB


def _is_generic(system: System, weights: PyTree) -> bool:
    """Whether the model's tangent, or one that it wraps, has no closed form."""
    tangent = eqx.filter_eval_shape(system.tangent, weights)
    parts = jax.tree.leaves(tangent, is_leaf=lambda part: isinstance(part, GenericTangent))
    return any(isinstance(part, GenericTangent) for part in parts)
