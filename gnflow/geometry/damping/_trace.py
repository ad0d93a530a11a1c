"""Damping by the trace, which needs no Gram matrix."""

from jaxtyping import Array, Float

from ..._core import number_field
from ._multiple import AbstractMultiple
from ._spectrum import Spectrum


class Trace(AbstractMultiple):
    """eps = max(floor, factor * trace(H A)), the sum of the eigenvalues of H A.

    sigma_max <= trace <= NC sigma_max: the same factor damps once to NC times as strongly as with `LargestEigenvalue`. The
    trace is exact for every direction solver, from the diagonal blocks of A alone, and differentiable where eigenvalues cross.
    With the Hessian or the Fisher metric neither it nor sigma_max grows with N. The condition number of H A + eps is at most
    1 + 1/factor.

    **Arguments:**

    - `factor`: >= 0, dimensionless.
    - `floor`: >= 0, in units of H A.

    **Raises:** `ConfigError` if one of them is negative.
    """

    factor: float = number_field("Trace: factor", default=1e-4, least=0.0)
    floor: float = number_field("Trace: floor", default=0.0, least=0.0)

    def of_spectrum(self, spectrum: Spectrum) -> Float[Array, ""]:
        """The trace."""
        return spectrum.trace
