"""The alignment of the NTK with the targets."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import DataError
from ..geometry import Snapshot, System
from ._base import AbstractMetric, Variable


class KernelTargetAlignment(AbstractMetric):
    """y^T A y / (||A|| ||y||^2) with the Frobenius norm of the NTK Gram matrix A: between 0 and 1, dimensionless.

    It is 1 only if A is a multiple of y y^T, and nan if A = 0. y are the NC training targets in the loss's canonical form
    (one-hot rows for classes). Nothing is centred. Source: Cristianini et al. 2001, "On kernel-target alignment".
    """

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`kernel_target_alignment`. **Raises:** `DataError` if all targets are zero, for which it is 0/0."""
        if not np.any(np.asarray(system.problem.y_train)):
            raise DataError("KernelTargetAlignment needs targets to align with, but y_train is zero; leave it out.")
        return (Variable("kernel_target_alignment", "kernel-target alignment", "1", "Cristianini et al. 2001"),)

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The alignment at this state."""
        targets = snapshot.system.problem.y_train.reshape(-1)
        fit = targets @ (snapshot.gram @ targets)
        return {"kernel_target_alignment": fit / (jnp.linalg.norm(snapshot.gram) * jnp.sum(targets**2))}
