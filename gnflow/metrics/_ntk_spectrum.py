"""Extreme eigenvalues, conditioning and effective rank of the NTK."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..geometry import Snapshot, System, effective_rank, rank_cutoff
from ._base import AbstractMetric, Variable


class NTKSpectrum(AbstractMetric):
    """Four numbers of the eigenvalues lam_1 <= ... <= lam_NC of the NTK Gram matrix A = J J^T on the training inputs.

    - `ntk_smallest_eigenvalue`: lam_1, the sigma-star of [A], in outputs^2/weights^2; rounding of either sign if A is
      singular.
    - `ntk_largest_eigenvalue`: lam_NC, in outputs^2/weights^2.
    - `ntk_condition_number`: lam_NC / lam_1, dimensionless; inf if lam_1 is not above the rank cut-off
      NC * (machine epsilon) * lam_NC, because then it cannot be told from zero.
    - `ntk_effective_rank`: exp(-sum_i q_i log q_i) with q = lam / sum(lam), between 1 and NC, dimensionless; nan if A = 0.

    Sources: Jacot et al. 2018 (the NTK); [A] Arbel et al. 2023, arXiv 2302.02904 (the smallest eigenvalue in the
    rate); Roy and Vetterli 2007 (effective rank).
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """The four numbers; defined for every model."""
        return (
            Variable(
                "ntk_smallest_eigenvalue",
                "smallest eigenvalue of the NTK",
                "outputs^2/weights^2",
                "Jacot et al. 2018; sigma-star of Arbel et al. 2023 (arXiv 2302.02904)",
            ),
            Variable(
                "ntk_largest_eigenvalue", "largest eigenvalue of the NTK", "outputs^2/weights^2", "Jacot et al. 2018"
            ),
            Variable("ntk_condition_number", "condition number of the NTK", "1", "Jacot et al. 2018"),
            Variable("ntk_effective_rank", "effective rank of the NTK", "1", "Roy and Vetterli 2007"),
        )

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The four numbers, by one eigendecomposition of size NC that all metrics share."""
        eigenvalues = snapshot.eigenvalues
        smallest, largest = eigenvalues[0], eigenvalues[-1]
        regular = smallest > rank_cutoff(eigenvalues)
        return {
            "ntk_smallest_eigenvalue": smallest,
            "ntk_largest_eigenvalue": largest,
            "ntk_condition_number": jnp.where(regular, largest / jnp.where(regular, smallest, 1.0), jnp.inf),
            "ntk_effective_rank": effective_rank(eigenvalues),
        }
