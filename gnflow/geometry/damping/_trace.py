"""Damping by the trace, which needs no Gram matrix."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import number_field
from ._base import AbstractDamping
from ._spectrum import Spectrum


class Trace(AbstractDamping):
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

    has_jumps: ClassVar[bool] = False
    depends_on_time: ClassVar[bool] = False

    factor: float = number_field("Trace: factor", default=1e-4, least=0.0)
    floor: float = number_field("Trace: floor", default=0.0, least=0.0)

    @property
    def is_positive(self) -> bool:
        """Whether the floor is positive: the trace may underflow to 0."""
        return bool(self.floor > 0)

    @property
    def is_zero(self) -> bool:
        """Whether factor and floor are zero."""
        return bool(self.factor == 0 and self.floor == 0)

    def __call__(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """max(floor, factor * trace)."""
        return jnp.maximum(self.floor, self.factor * spectrum.trace)
