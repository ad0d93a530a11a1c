"""The NTK of each term of a residual problem."""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import DataError
from ..geometry import Snapshot, System, numerical_rank, rank_cutoff
from ..problems import ResidualProblem
from ._base import AbstractMetric, Variable

_SOURCE = "Wang, Yu, Perdikaris 2022 (arXiv 2007.14527), Section 4"


class TermNTK(AbstractMetric):
    """The spectrum of the diagonal block A_k = J_k J_k^T of each term of a `ResidualProblem`, in four numbers.

    J_k is the Jacobian of the term's residuals times sqrt(weight q_i/sum q), so A_k tends to the NTK of the term's operator as
    points are added. Under gradient flow terms with a large trace are fitted first.

    - `ntk_trace_NAME`: the trace of A_k.
    - `ntk_largest_eigenvalue_NAME`: its largest eigenvalue.
    - `ntk_rank_NAME`: the number of its eigenvalues above the rank cut-off R_k * (machine epsilon) * lam_max.
    - `ntk_condition_number_NAME`: its largest eigenvalue over the smallest one above the cut-off, dimensionless; inf if
      there is none. (With P < R_k weights all others are 0.)

    Source: Wang, Yu, Perdikaris 2022 (arXiv 2007.14527), Section 4, where the residuals have no weights.
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """Four numbers for each term. **Raises:** `DataError` unless the problem is a residual problem."""
        return tuple(
            Variable(f"{kind}_{name}", f"{what} of the NTK of the {name} term", units, _SOURCE)
            for name in _terms(system)
            for kind, what, units in (
                ("ntk_trace", "trace", "outputs^2/weights^2"),
                ("ntk_largest_eigenvalue", "largest eigenvalue", "outputs^2/weights^2"),
                ("ntk_rank", "rank", "1"),
                ("ntk_condition_number", "condition number on the range", "1"),
            )
        )

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The numbers, by an eigendecomposition of each block."""
        terms = _terms(snapshot.system)
        edges = np.cumsum((0, *terms.values()))
        values = {}
        for name, (low, high) in zip(terms, itertools.pairwise(edges), strict=True):
            eigenvalues = jnp.linalg.eigvalsh(snapshot.gram[low:high, low:high])
            cutoff, largest = rank_cutoff(eigenvalues), eigenvalues[-1]
            smallest = jnp.min(jnp.where(eigenvalues > cutoff, eigenvalues, jnp.inf))
            values[f"ntk_trace_{name}"] = jnp.sum(eigenvalues)
            values[f"ntk_largest_eigenvalue_{name}"] = largest
            values[f"ntk_rank_{name}"] = numerical_rank(eigenvalues)
            # A term without weight, or one that no trained weight changes, has no eigenvalue above the cut-off.
            values[f"ntk_condition_number_{name}"] = jnp.where(largest > cutoff, largest / smallest, jnp.inf)
        return values


def _terms(system: System) -> dict[str, int]:
    """The number of rows of each term, by name. **Raises:** `DataError`."""
    if not isinstance(system.problem, ResidualProblem):
        raise DataError("TermNTK measures the terms of a gnflow.ResidualProblem; take NTKSpectrum for other problems.")
    return system.problem.rows
