"""Estimate the memory that a cell needs, before it runs."""

import jax

from .._core import GnflowError
from ..config import RunSpec

_GIB = 2**30
BASE_GIB = 0.8  # a worker with JAX and its compiled programs
# The number of float64 arrays alive at the peak of a run, by shape (experiments/benchmarks/sweep_engine.py measures processes).
_OF_FEATURES = 5  # training and test samples x hidden units: activations, their derivatives, products with these
_OF_KERNEL = 12  # (N C)^2: Gram matrices, their eigenvectors, the workspace of the eigensolver
_OF_WEIGHTS = 30  # like the weights: stages of a step, the start, memories of metrics


def estimated_memory_gib(spec: RunSpec) -> float:
    """The peak memory in GiB that a cell adds to a worker (`BASE_GIB`), from the shapes of its problem and model.

    With N training and n other samples, C outputs, U hidden units (counted on both sides of a layer) and P weights it is 8
    bytes times 5 (N + n) U + 12 (N C)^2 + 30 P. The estimate is rather too high: 1.5 to 12 times what was measured
    (docs/devdocs/sweeps.md), with the smallest ratio for the largest arrays. It is 0 for a cell that cannot be prepared, which
    will fail at once.
    """
    try:
        made = spec.prepare()
    except (GnflowError, ArithmeticError, MemoryError):
        return 0.0
    problem = made.flow.system(made.problem, made.model).problem
    others = sum(len(x) for x in (problem.x_validation, problem.x_test) if x is not None)
    samples = problem.num_train + others
    arrays = [leaf for leaf in jax.tree.leaves(made.model) if hasattr(leaf, "ndim")]
    units = sum(leaf.shape[0] for leaf in arrays if leaf.ndim == 2)
    weights = sum(leaf.size for leaf in arrays)
    kernel = problem.y_train.size**2
    return 8 * (_OF_FEATURES * samples * units + _OF_KERNEL * kernel + _OF_WEIGHTS * weights) / _GIB
