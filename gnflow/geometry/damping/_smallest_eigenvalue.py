"""Damping by the smallest eigenvalue of the Gram matrix."""

from jaxtyping import Array, Float

from ..._core import number_field
from ._multiple import AbstractMultiple
from ._spectrum import Spectrum


class SmallestEigenvalue(AbstractMultiple):
    """eps = max(floor, factor * sigma_min(w)), where sigma_min is the smallest eigenvalue of the NTK Gram matrix A.

    If eps <= factor * sigma_min, a lower bound of the convergence rate does not depend on the conditioning of A
    (docs/theorems/sandwich.md; the point of [A], Arbel et al. 2023, arXiv 2302.02904). The experiments of [A] have factor = 1
    and floor = 1e-7.

    **Arguments:**

    - `factor`: >= 0, dimensionless.
    - `floor`: >= 0, in units of A.

    **Raises:** `ConfigError` if one of them is negative.
    """

    factor: float = number_field("SmallestEigenvalue: factor", default=1.0, least=0.0)
    floor: float = number_field("SmallestEigenvalue: floor", default=0.0, least=0.0)

    def largest_ratio(self, smallest_eigenvalue: float) -> float:
        """max(factor, floor/sigma)."""
        return max(float(self.factor), float(self.floor) / smallest_eigenvalue)

    def of_spectrum(self, spectrum: Spectrum) -> Float[Array, ""]:
        """sigma_min."""
        return spectrum.smallest
