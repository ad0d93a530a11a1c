"""Damping by the largest eigenvalue, which needs no Gram matrix."""

from jaxtyping import Array, Float

from ..._core import number_field
from ._multiple import AbstractMultiple
from ._spectrum import Spectrum


class LargestEigenvalue(AbstractMultiple):
    """eps = max(floor, factor * sigma_max(w)), where sigma_max is the largest eigenvalue of H A.

    It replaces `SmallestEigenvalue` where no Gram matrix is formed: a few products with J and J^T give sigma_max, but not
    sigma_min. The condition number of H A + eps is then at most 1 + 1/factor, which bounds the number of conjugate-gradient
    iterations for every A (Golub and Van Loan, "Matrix Computations", 4th ed., Theorem 11.3.3). A mode decays at
    lam/(lam + eps) times its undamped rate, so modes far below factor * sigma_max are slow. No bound on the rate that is
    free of the conditioning of A, as `SmallestEigenvalue` has, holds with this rule.

    sigma_max is of H A, not of A, so that the same factor is the same strength in every metric. `TruncatedEigh` and the
    spectral family take it from their decomposition. `Cholesky` and `ConjugateGradients` take it from ten Lanczos steps, whose
    result is a lower bound.

    **Arguments:**

    - `factor`: >= 0, dimensionless.
    - `floor`: >= 0, in units of H A.

    **Raises:** `ConfigError` if one of them is negative.
    """

    factor: float = number_field("LargestEigenvalue: factor", default=1e-4, least=0.0)
    floor: float = number_field("LargestEigenvalue: floor", default=0.0, least=0.0)

    def of_spectrum(self, spectrum: Spectrum) -> Float[Array, ""]:
        """sigma_max."""
        return spectrum.largest
