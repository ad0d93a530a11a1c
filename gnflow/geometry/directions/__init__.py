"""Direction solvers, which compute the coefficients a of the Gauss-Newton direction -J^T a, and their preconditioners."""

from collections.abc import Callable
from typing import Any

from ._base import (
    AbstractDirectionSolver as AbstractDirectionSolver,
    Direction as Direction,
    SolveDiagnostics as SolveDiagnostics,
    relative_residual as relative_residual,
)
from ._cholesky import Cholesky as Cholesky
from ._conjugate_gradients import ConjugateGradients as ConjugateGradients
from ._equation import DirectionEquation as DirectionEquation
from ._matrix_power import (
    kept_modes as kept_modes,
    truncated_power as truncated_power,
    truncated_power_product as truncated_power_product,
)
from ._mean_kernel import MeanKernel as MeanKernel
from ._modes import Decomposition as Decomposition, Modes as Modes, dense_modes as dense_modes
from ._nystrom import Nystrom as Nystrom
from ._preconditioner import AbstractPreconditioner as AbstractPreconditioner
from ._spectra import decomposed_spectrum as decomposed_spectrum
from ._truncated_eigh import TruncatedEigh as TruncatedEigh
from ._whitening import whitened_gram as whitened_gram

direction_solver_kinds: dict[str, Callable[..., Any]] = {
    "truncated_eigh": TruncatedEigh,
    "cholesky": Cholesky,
    "conjugate_gradients": ConjugateGradients,
}

preconditioner_kinds: dict[str, Callable[..., Any]] = {
    "mean_kernel": MeanKernel,
    "nystrom": Nystrom,
}
