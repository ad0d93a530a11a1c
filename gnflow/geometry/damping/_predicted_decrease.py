"""Damping by the decrease that the quadratic model of a least-squares problem predicts."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import number_field
from ._base import AbstractDamping
from ._spectrum import Spectrum

# Halvings of the interval of log eps, at most some 30 wide: float64 tells apart singular values within a factor of 5e-7. A
# Newton step then takes the error from 1e-11 to rounding.
_HALVINGS = 40


class PredictedDecrease(AbstractDamping):
    """The largest eps whose update is predicted to achieve `share` of the decrease that eps = 0 would achieve.

    For min_X |A X - T|^2 + eps |X|^2, where A has the singular values s_i > 0 and s_i^2 = lam_i, the update X(eps) lowers the
    quadratic model q(X) = |A X - T|^2/2 by

        D(eps) = 1/2 sum_i (1 - (eps/(lam_i + eps))^2) |v_i^T T|^2.

    D falls with eps, from D(0) to 0, and eps solves D(eps) = share D(0). Of all X that achieve this decrease X(eps) has the
    least norm: it is the step to the boundary of a trust region whose radius is set by what the step is predicted to gain.
    eps scales with A A^T and does not depend on the scale of T. With share = 1, eps = 0; as the share falls to 0 the update
    turns into the gradient's direction A^T T. Derived in docs/reversible.md, Damped blocks; the trust-region problem: Nocedal
    and Wright, "Numerical Optimization", 2nd ed., Theorem 4.1.

    It reads what is asked of each mode, and not the eigenvalues alone. So it is for `ReversibleGaussNewtonFlow`, where each
    half-block has an eps of its own. It may jump where the rank of A does.

    **Arguments:** `share`: above 0 and at most 1, dimensionless.

    **Raises:** `ConfigError` for another share; when the velocity is computed, in a flow that gives the rule the eigenvalues
    alone.
    """

    share: float = number_field(
        "PredictedDecrease: share",
        default=0.9,
        above=0.0,
        most=1.0,
        remedy="Without any decrease there is no update.",
    )

    @property
    def is_zero(self) -> bool:
        """Whether the share is 1."""
        return bool(self.share == 1)

    def __call__(self, time: Float[Array, ""], spectrum: Spectrum) -> Float[Array, ""]:
        """eps, in units of A A^T."""
        energies = spectrum.target_energies  # first, because where they are not known this says what to do
        eigenvalues, largest = spectrum.all, spectrum.largest
        there = eigenvalues > 0
        eigenvalues = jnp.where(there, eigenvalues, 1.0)
        energies = jnp.where(there, energies, 0.0)
        allowed = (1 - self.share) * jnp.sum(energies)
        left = jnp.sqrt(1 - self.share)  # the part eps/(lam + eps) of its target that a single mode may leave

        def loss(eps: Array) -> Array:
            """What is lost of the decrease, and its derivative in eps."""
            remaining = eps / (eigenvalues + eps)
            slopes = 2 * remaining * eigenvalues / (eigenvalues + eps) ** 2
            return jnp.stack([jnp.sum(remaining**2 * energies), jnp.sum(slopes * energies)])

        def ridge(position: Array) -> Array:
            """The eps with which a mode of the eigenvalue exp(position), alone, achieves the share."""
            return left * (1 + left) / self.share * jnp.exp(position)

        def halve(_, interval: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = interval
            middle = (low + high) / 2
            enough = loss(ridge(middle))[0] <= allowed
            return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

        smallest = jnp.min(jnp.where(there, eigenvalues, jnp.inf))
        ends = tuple(jnp.log(jnp.where(jnp.any(there), end, 1.0)) for end in (smallest, largest))
        eps = ridge(jax.lax.fori_loop(0, _HALVINGS, halve, ends)[0])
        # One Newton step, to rounding. The derivative of eps in the spectrum comes from it alone (implicit functions).
        eps = jax.lax.stop_gradient(eps)
        lost, slope = loss(eps)
        eps = eps - jnp.where(slope > 0, (lost - allowed) / jnp.where(slope > 0, slope, 1.0), 0.0)
        return jnp.where(jnp.any(there), eps, 0.0 * largest)  # nan where the spectrum is
