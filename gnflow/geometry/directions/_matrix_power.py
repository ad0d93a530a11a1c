"""(B + eps)^(-s) b over the modes that can be told from zero, with a derivative where modes coincide."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._spectrum import rank_cutoff


def kept_modes(eigenvalues: Float[Array, " size"], shift: Float[Array, ""]) -> Bool[Array, " size"]:
    """Which modes can be divided by lam + eps: those where it is above the rank cut-off."""
    return jnp.maximum(eigenvalues, 0.0) + shift > rank_cutoff(eigenvalues)


def truncated_power(
    eigenvalues: Float[Array, " size"], shift: Float[Array, ""], power: Float[Array, ""] | float
) -> Float[Array, " size"]:
    """(lam + eps)^(-power) for the modes that are kept, 0 for the others; nan for an eps that is nan."""
    kept = kept_modes(eigenvalues, shift)
    left_out = jnp.where(jnp.isnan(shift), jnp.nan, 0.0)
    return jnp.where(kept, _shifted(eigenvalues, shift, kept) ** -power, left_out)


@jax.custom_jvp
def truncated_power_product(
    matrix: Float[Array, "size size"],
    shift: Float[Array, ""],
    power: Float[Array, ""],
    right: Float[Array, " size"],
    eigenvalues: Float[Array, " size"],
    eigenvectors: Float[Array, "size size"],
) -> Float[Array, " size"]:
    """Q diag((lam + eps)^(-power)) Q^T b over the kept modes; a solve with B + eps at power 1.

    Its derivative in B, eps and b does not go through that of the eigenvectors, which does not exist where eigenvalues
    coincide (with fewer weights than outputs all but P are zero): it is Q [Gamma o (Q^T dB Q + deps)] Q^T b with the divided
    differences Gamma_ij = (psi_i - psi_j)/(lam_i - lam_j), between a kept mode and one that is left out psi_i/(lam_i + eps),
    and 0 between two that are left out. At power 1 that is the derivative of the pseudo-inverse at constant rank (Golub and
    Pereyra, SIAM J. Numer. Anal. 1973). Sources: Daleckii and Krein 1965; Higham, "Functions of Matrices", 2008, Theorem
    3.11. A second derivative goes through the eigenvectors' and is nan where eigenvalues coincide.

    **Arguments:** `matrix`: B, symmetric; `right`: b; `eigenvalues`, `eigenvectors`: of B. No derivative is taken in `power`.
    """
    return eigenvectors @ (truncated_power(eigenvalues, shift, power) * (eigenvectors.T @ right))


@truncated_power_product.defjvp
def _differentiate(primals, tangents):
    matrix, shift, power, right, eigenvalues, eigenvectors = primals
    matrix_dot, shift_dot, _, right_dot, _, _ = tangents
    change = eigenvectors.T @ matrix_dot @ eigenvectors + shift_dot * jnp.eye(eigenvalues.size)
    turned = (_divided_differences(eigenvalues, shift, power) * change) @ (eigenvectors.T @ right)
    value = truncated_power_product(matrix, shift, power, right, eigenvalues, eigenvectors)
    along = truncated_power_product(matrix, shift, power, right_dot, eigenvalues, eigenvectors)
    return value, along + eigenvectors @ turned


def _divided_differences(
    eigenvalues: Float[Array, " size"], shift: Float[Array, ""], power: Float[Array, ""]
) -> Float[Array, "size size"]:
    kept = kept_modes(eigenvalues, shift)
    shifted = _shifted(eigenvalues, shift, kept)
    # a^-s - b^-s = b^-s (exp(-s x) - 1) and a - b = b (exp(x) - 1) with x = log(a/b): no difference of near numbers is left.
    x = jnp.log(shifted)[:, None] - jnp.log(shifted)[None, :]
    both = -power * shifted[None, :] ** (-power - 1) * _growth(-power * x) / _growth(x)
    one = shifted ** (-power - 1)
    mixed = jnp.where(kept[:, None], one[:, None], one[None, :])
    pair = kept[:, None] & kept[None, :]
    return jnp.where(pair, both, jnp.where(kept[:, None] | kept[None, :], mixed, 0.0))


def _growth(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """(exp(x) - 1)/x."""
    return jnp.where(x == 0, 1.0, jnp.expm1(x) / jnp.where(x == 0, 1.0, x))


def _shifted(
    eigenvalues: Float[Array, " size"], shift: Float[Array, ""], kept: Bool[Array, " size"]
) -> Float[Array, " size"]:
    return jnp.where(kept, jnp.maximum(eigenvalues, 0.0) + shift, 1.0)
