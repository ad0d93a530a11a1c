"""The linearisation of a flow: the low-rank part W of its Jacobian at a point, in coordinates that diagonalise it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..losses import AbstractOutputFactor, ScaledIdentity
from ._tangent import AbstractTangent
from .directions import Direction, Modes
from .directions._unseen import coefficients, right_hand_side


class Linearisation(eqx.Module):
    """The flow w' = F(w) = -J^T a at a point w_n, with an approximation W = -J^T L Rt J of F's Jacobian, of rank r <= NC.

    For a flow a = K g the Jacobian of F is -J^T K H_L J (H_L is the Hessian of the loss) plus terms that vanish with the
    residual or come from the change of K and J. W is the first term, factored so that Rt A L = diag(beta). Then, for every
    function psi that is analytic at 0,

        psi(h W) x = psi(0) x - h J^T L diag( (psi(0) - psi(-h beta)) / (h beta) ) Rt J x,

    which costs one J and one J^T product. beta >= 0 because A K is symmetric positive semi-definite. Derived in
    docs/theory.md, Exponential steps.

    **Attributes:**

    - `tangent`: the tangent at w_n.
    - `direction`: a (N, C) and how it was solved for.
    - `left`: L (NC, r).
    - `right`: Rt (r, NC).
    - `rates`: beta (r,), in 1/flow time.
    - `gram`: A (NC, NC), or None if it was not formed.
    - `relative_residual`: that of the modes (`geometry.directions.Modes`).
    - `left_out`: that of the modes as a rate, in 1/flow time: modes that decay more slowly may be missing in W.
    - `decay`: lambda >= 0 of a flow with weight decay, for which W = -lambda I - J^T L Rt J, in 1/flow time; None without
      weight decay.
    """

    tangent: AbstractTangent
    direction: Direction
    left: Float[Array, "size rank"]
    right: Float[Array, "rank size"]
    rates: Float[Array, " rank"]
    gram: Float[Array, "size size"] | None
    relative_residual: Float[Array, ""]
    left_out: Float[Array, ""]
    decay: Float[Array, ""] | None = None

    @property
    def all_rates(self) -> Float[Array, " rank"]:
        """The rates at which the modes decay, including weight decay, in 1/flow time."""
        return self.rates if self.decay is None else self.rates + self.decay

    def pull(self, coefficients: Float[Array, " size"]) -> PyTree:
        """J^T q: a tree like the weights."""
        return self.tangent.vjp(coefficients.reshape(self.tangent.outputs.shape))

    def pull_all(self, coefficients: Float[Array, "count size"]) -> PyTree:
        """J^T q for several q: a tree like the weights, each leaf with a leading dimension."""
        return jax.vmap(self.pull)(coefficients)

    def push(self, displacement: PyTree) -> Float[Array, " size"]:
        """J x for a tree like the weights."""
        return self.tangent.jvp(displacement).reshape(-1)

    def gram_product(self, coefficients: Float[Array, " size"]) -> Float[Array, " size"]:
        """A q, (NC,)."""
        if self.gram is None:
            return self.push(self.pull(coefficients))
        return self.gram @ coefficients


def linearise_with_hessian(
    tangent: AbstractTangent,
    direction: Direction,
    modes: Modes,
    gains: Float[Array, " rank"],
    factor: AbstractOutputFactor,
    scale: Float[Array, ""] | float = 1.0,
) -> Linearisation:
    """W for a flow whose metric is the Hessian up to a number: K H_L = R Q diag(gains) Q^T R^T scale.

    **Arguments:**

    - `tangent`: the tangent at w_n.
    - `direction`: the direction there.
    - `modes`: the modes of R^T A R.
    - `gains`: the values (r,) of K on these modes.
    - `factor`: R.
    - `scale`: the number c in H_L = c R R^T.
    """
    columns = _on_columns(factor.product, modes.eigenvectors, tangent.outputs.shape)
    # Eigenvalues that are zero may be negative by rounding; a negative rate would be a mode that grows.
    rates = scale * gains * jnp.maximum(modes.eigenvalues, 0.0)
    if isinstance(factor, ScaledIdentity):
        right = jnp.sqrt(factor.scale) * modes.eigenvectors.T
    else:
        right = columns.T
    return Linearisation(
        tangent=tangent,
        direction=direction,
        left=columns * (scale * gains)[None, :],
        right=right,
        rates=rates,
        gram=modes.gram,
        relative_residual=modes.relative_residual,
        left_out=scale * jnp.max(gains) * modes.left_out,
    )


def linearise_with_other_metric(
    tangent: AbstractTangent,
    direction: Direction,
    modes: Modes,
    gains: Float[Array, " rank"],
    factor: AbstractOutputFactor,
    hessian_factor: AbstractOutputFactor,
) -> Linearisation:
    """W for a flow in a metric R R^T (R invertible) that is not the Hessian R_L R_L^T.

    With T = R^(-1) R_L the symmetric matrix T^T Q diag(gains lam) Q^T T = Q' diag(beta) Q'^T gives L = R Q diag(gains) Q^T T Q'
    and Rt = Q'^T R_L^T. This takes a second eigendecomposition of size NC.

    **Arguments:**

    - `tangent`: the tangent at w_n.
    - `direction`: the direction there.
    - `modes`: all modes of R^T A R.
    - `gains`: the values (NC,) of K on these modes.
    - `factor`: R.
    - `hessian_factor`: R_L.
    """
    shape = tangent.outputs.shape
    eigenvalues = jnp.maximum(modes.eigenvalues, 0.0)

    def relative(column: Array) -> Array:
        return factor.whiten(hessian_factor.product(column))

    # T is block diagonal over the samples, but is formed as a matrix: R need not be symmetric, and T^T is needed.
    rotated = _on_columns(relative, jnp.eye(tangent.outputs.size), shape).T @ modes.eigenvectors  # T^T Q
    rates, rotation = jnp.linalg.eigh((rotated * (gains * eigenvalues)[None, :]) @ rotated.T)
    left = modes.eigenvectors @ (gains[:, None] * (rotated.T @ rotation))
    return Linearisation(
        tangent=tangent,
        direction=direction,
        left=_on_columns(factor.product, left, shape),
        right=_on_columns(hessian_factor.product, rotation, shape).T,
        rates=jnp.maximum(rates, 0.0),
        gram=modes.gram,
        relative_residual=modes.relative_residual,
        left_out=modes.left_out,
    )


def linearise_with_singular_metric(
    tangent: AbstractTangent,
    direction: Direction,
    modes: Modes,
    gains: Float[Array, " rank"],
    factor: AbstractOutputFactor,
    hessian_factor: AbstractOutputFactor,
    damping: Float[Array, ""],
) -> Linearisation:
    """W for Gauss-Newton flow in a metric R R^T that may not see all of the Hessian R_L R_L^T: R_L = R T + U.

    The direction's formula, applied to each column, is K R_L = R Q diag(gains) Q^T (T - R^T A U/eps) + U/eps. The symmetric
    matrix R_L^T A K R_L = Q' diag(beta) Q'^T gives L = K R_L Q' and Rt = Q'^T R_L^T. Without damping the terms in U are left
    out.

    **Arguments:**

    - `tangent`: the tangent at w_n.
    - `direction`: the direction there.
    - `modes`: all modes of R^T A R, with the Gram matrix.
    - `gains`: the values (NC,) of K on these modes.
    - `factor`: R.
    - `hessian_factor`: R_L.
    - `damping`: eps, in units of H A.
    """
    shape = tangent.outputs.shape
    gram = modes.gram
    assert gram is not None

    def gram_product(column: Array) -> Array:
        return (gram @ column.reshape(-1)).reshape(shape)

    def applied(column: Array) -> Array:
        unseen = factor.unseen(column)
        right = right_hand_side(factor.whiten(column), unseen, factor, damping, gram_product)
        solution = modes.eigenvectors @ (gains * (modes.eigenvectors.T @ right.reshape(-1)))
        return coefficients(solution.reshape(shape), unseen, factor, damping)

    root = _on_columns(hessian_factor.product, jnp.eye(tangent.outputs.size), shape)  # R_L
    moved = _on_columns(applied, root, shape)  # K R_L
    matrix = root.T @ gram @ moved
    rates, rotation = jnp.linalg.eigh((matrix + matrix.T) / 2)
    return Linearisation(
        tangent=tangent,
        direction=direction,
        left=moved @ rotation,
        right=(root @ rotation).T,
        rates=jnp.maximum(rates, 0.0),
        gram=gram,
        relative_residual=modes.relative_residual,
        left_out=modes.left_out,
    )


def _on_columns(
    function: Callable[[Array], Array], matrix: Float[Array, "size columns"], shape: tuple[int, ...]
) -> Float[Array, "size columns"]:
    """Apply a map of outputs (N, C) to every column of a matrix with NC rows."""
    return jax.vmap(lambda column: function(column.reshape(shape)).reshape(-1), in_axes=1, out_axes=1)(matrix)
