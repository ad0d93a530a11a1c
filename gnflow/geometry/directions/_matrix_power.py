"""(B + eps)^(-s) b over the modes that can be told from zero, differentiable also where eigenvalues coincide."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def kept_modes(
    eigenvalues: Float[Array, " size"], shift: Float[Array, ""], cutoff: Float[Array, ""]
) -> Bool[Array, " size"]:
    """Which modes are kept: those with lam + eps above the rank cut-off, which can be divided by."""
    return jnp.maximum(eigenvalues, 0.0) + shift > cutoff


def truncated_power(
    eigenvalues: Float[Array, " size"],
    shift: Float[Array, ""],
    power: Float[Array, ""] | float,
    cutoff: Float[Array, ""],
) -> Float[Array, " size"]:
    """(lam + eps)^(-power) for the kept modes, 0 for the others; nan if eps is nan."""
    kept = kept_modes(eigenvalues, shift, cutoff)
    left_out = jnp.where(jnp.isnan(shift), jnp.nan, 0.0)
    return jnp.where(kept, _shifted(eigenvalues, shift, kept) ** -power, left_out)


@jax.custom_jvp
def truncated_power_product(
    matrix: Float[Array, "size size"],
    shift: Float[Array, ""],
    power: Float[Array, ""],
    right: Float[Array, " size"],
    eigenvalues: Float[Array, " rank"],
    eigenvectors: Float[Array, "size rank"],
    cutoff: Float[Array, ""],
) -> Float[Array, " size"]:
    """Q diag((lam + eps)^(-power)) Q^T b over the kept modes; for power 1 a solve with B + eps.

    The derivative of the eigenvectors does not exist where eigenvalues coincide (with P weights and more outputs all but P
    are zero). So the derivative in B, eps and b does not use it: it is Q [Gamma o (Q^T dB Q + deps)] Q^T b with the divided
    differences Gamma_ij = (psi_i - psi_j)/(lam_i - lam_j). Between a kept mode i and one that is left out Gamma is
    psi_i/(lam_i + eps); between two modes that are left out it is 0. For power 1 that is the derivative of the pseudo-inverse
    at constant rank (Golub and Pereyra, SIAM J. Numer. Anal. 1973). Sources: Daleckii and Krein 1965; Higham, "Functions of
    Matrices", 2008, Theorem 3.11. A second derivative uses that of the eigenvectors and is nan where eigenvalues coincide.

    **Arguments:**

    - `matrix`: B, symmetric.
    - `shift`: eps.
    - `power`: s > 0; no derivative is taken in it.
    - `right`: b.
    - `eigenvalues`, `eigenvectors`: those of B; without some or all whose eigenvalue is 0, b is projected on the others.
    - `cutoff`: the value up to which an eigenvalue cannot be told from zero.
    """
    return eigenvectors @ (truncated_power(eigenvalues, shift, power, cutoff) * (eigenvectors.T @ right))


@truncated_power_product.defjvp
def _differentiate(primals, tangents):
    matrix, shift, power, right, eigenvalues, eigenvectors, cutoff = primals
    matrix_dot, shift_dot, _, right_dot, _, _, _ = tangents
    if eigenvectors.shape[1] < eigenvectors.shape[0]:
        return _differentiate_in_range(primals, tangents)
    change = eigenvectors.T @ matrix_dot @ eigenvectors + shift_dot * jnp.eye(eigenvalues.size)
    turned = (_divided_differences(eigenvalues, shift, power, cutoff) * change) @ (eigenvectors.T @ right)
    value = truncated_power_product(matrix, shift, power, right, eigenvalues, eigenvectors, cutoff)
    along = truncated_power_product(matrix, shift, power, right_dot, eigenvalues, eigenvectors, cutoff)
    return value, along + eigenvectors @ turned


def _differentiate_in_range(primals, tangents):
    """The same without the modes of eigenvalue 0, of which only the projection N on all of them is needed.

    The derivative turns the range of B, so that these modes take part. Value and derivative are those with all modes.
    """
    _, shift, power, right, eigenvalues, eigenvectors, cutoff = primals
    matrix_dot, shift_dot, _, right_dot, _, _, _ = tangents

    def outside(vector: Array) -> Array:
        return vector - eigenvectors @ (eigenvectors.T @ vector)

    with_zero = jnp.concatenate([jnp.zeros(1), eigenvalues])
    gains = truncated_power(with_zero, shift, power, cutoff)
    differences = _divided_differences(with_zero, shift, power, cutoff)
    amplitudes, rest = eigenvectors.T @ right, outside(right)

    def product(vector: Array) -> Array:
        return gains[0] * outside(vector) + eigenvectors @ (gains[1:] * (eigenvectors.T @ vector))

    change = eigenvectors.T @ matrix_dot @ eigenvectors + shift_dot * jnp.eye(eigenvalues.size)
    in_range = (differences[1:, 1:] * change) @ amplitudes + differences[0, 1:] * (eigenvectors.T @ matrix_dot @ rest)
    beyond = outside(matrix_dot @ (eigenvectors @ (differences[0, 1:] * amplitudes) + differences[0, 0] * rest))
    beyond = beyond + differences[0, 0] * shift_dot * rest
    return product(right), product(right_dot) + eigenvectors @ in_range + beyond


def _divided_differences(
    eigenvalues: Float[Array, " size"], shift: Float[Array, ""], power: Float[Array, ""], cutoff: Float[Array, ""]
) -> Float[Array, "size size"]:
    kept = kept_modes(eigenvalues, shift, cutoff)
    shifted = _shifted(eigenvalues, shift, kept)
    # With x = log(a/b), a^-s - b^-s = b^-s (exp(-s x) - 1) and a - b = b (exp(x) - 1), so that near numbers do not cancel.
    x = jnp.log(shifted)[:, None] - jnp.log(shifted)[None, :]
    both = -power * shifted[None, :] ** (-power - 1) * _growth(-power * x) / _growth(x)
    one = shifted ** (-power - 1)
    mixed = jnp.where(kept[:, None], one[:, None], one[None, :])
    pair = kept[:, None] & kept[None, :]
    return jnp.where(pair, both, jnp.where(kept[:, None] | kept[None, :], mixed, 0.0))


def _growth(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """(exp(x) - 1)/x, also near x = 0."""
    return jnp.where(x == 0, 1.0, jnp.expm1(x) / jnp.where(x == 0, 1.0, x))


def _shifted(
    eigenvalues: Float[Array, " size"], shift: Float[Array, ""], kept: Bool[Array, " size"]
) -> Float[Array, " size"]:
    return jnp.where(kept, jnp.maximum(eigenvalues, 0.0) + shift, 1.0)
