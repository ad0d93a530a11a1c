"""Damping by the largest eigenvalue, which is known without a Gram matrix."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import number_field
from ._base import AbstractDamping
from ._spectrum import Spectrum


class LargestEigenvalue(AbstractDamping):
    """eps = max(floor, factor * sigma_max(w)), with sigma_max the largest eigenvalue of H A.

    It stands in for `SmallestEigenvalue` where no Gram matrix is formed: a few products with J and J^T give sigma_max, and
    none of them sigma_min. H A + eps then has a condition number of at most 1 + 1/factor, so that the number of
    conjugate-gradient iterations is bounded whatever A is (Golub and Van Loan, "Matrix Computations", 4th ed., Theorem
    11.3.3), and modes decay at the rate lam/(lam + eps) of the undamped ones: those far below factor * sigma_max are slow.
    The bound of [A], Theorem 1, on the rate is not promised by it.

    Of H A, not of A, so that the same factor means the same strength whatever the metric; for the identity metric they are
    one. `TruncatedEigh` and the spectral family take sigma_max from their decomposition, `Cholesky` and `ConjugateGradients`
    from ten Lanczos steps, which give it from below.

    **Arguments:** `factor` >= 0, dimensionless; `floor` >= 0, in units of H A. **Raises:** `ConfigError` if negative.
    """

    has_jumps: ClassVar[bool] = False
    depends_on_time: ClassVar[bool] = False

    factor: float = number_field("LargestEigenvalue: factor", default=1e-4, least=0.0)
    floor: float = number_field("LargestEigenvalue: floor", default=0.0, least=0.0)

    @property
    def is_positive(self) -> bool:
        """Whether the floor is: sigma_max may underflow to 0."""
        return bool(self.floor > 0)

    @property
    def is_zero(self) -> bool:
        """Whether factor and floor are."""
        return bool(self.factor == 0 and self.floor == 0)

    def __call__(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """max(floor, factor * sigma_max)."""
        return jnp.maximum(self.floor, self.factor * spectrum.largest)
