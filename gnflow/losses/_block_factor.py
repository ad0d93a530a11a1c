"""The factor of an output metric that is known by its blocks alone."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._factors import AbstractOutputFactor

# Eigenvalues of a block below this many units of rounding of its largest, times C, are zeros.
_ROUNDING = 8 * float(jnp.finfo(jnp.float64).eps)


class BlockFactor(AbstractOutputFactor):
    """H = blockdiag(H_n) and R = blockdiag(sqrt(H_n)), the symmetric square roots, by one eigendecomposition per sample.

    Eigenvalues below 8 C eps of the largest of their block (eps = 2.2e-16) count as zeros, so that `whiten` leaves such
    directions out and the gradient along them is in `unseen`: what underflows needs a factor of its own, in logarithms
    (`SoftmaxFactor`). A block with an eigenvalue below minus that number is no metric and becomes nan.

    It takes N C^2 numbers and N C^3 operations.

    **Arguments:** `root`: (N, C, C), the roots; `inverse`: (N, C, C), their Moore-Penrose inverses. `BlockFactor.of(blocks)`
    makes both.
    """

    root: Float[Array, "N C C"]
    inverse: Float[Array, "N C C"]

    @classmethod
    def of(cls, blocks: Float[Array, "N C C"]) -> "BlockFactor":
        """The factor of blockdiag(`blocks`), symmetric and not negative."""
        return cls(*_roots((blocks + jnp.swapaxes(blocks, 1, 2)) / 2))

    def product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(H_n) v_n for each sample."""
        return _each(self.root, v)

    def transpose_product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """The same: the roots are symmetric."""
        return _each(self.root, v)

    def whiten(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(H_n)^+ g_n for each sample."""
        return _each(self.inverse, g)


def _each(blocks: Float[Array, "N C C"], v: Float[Array, "N C"]) -> Float[Array, "N C"]:
    return jnp.einsum("nij,nj->ni", blocks, v)


def _in_eigenbasis(blocks: Float[Array, "N C C"]) -> tuple[Array, Array, Array]:
    """The roots of the eigenvalues (0 below rounding), their inverses (0 there), and the eigenvectors."""
    eigenvalues, vectors = jnp.linalg.eigh(blocks)
    rounding = _ROUNDING * blocks.shape[1] * jnp.max(jnp.abs(eigenvalues), axis=1, keepdims=True)
    seen = eigenvalues > rounding
    roots = jnp.sqrt(jnp.where(seen, eigenvalues, 1.0))
    # A negative curvature is no rounding: the loss is not convex there, and a factor of it would be of another loss.
    lost = jnp.where(jnp.any(eigenvalues < -rounding, axis=1, keepdims=True), jnp.nan, 0.0)
    return jnp.where(seen, roots, 0.0) + lost, jnp.where(seen, 1 / roots, 0.0) + lost, vectors


def _matrix(vectors: Float[Array, "N C C"], values: Float[Array, "N C"]) -> Float[Array, "N C C"]:
    return jnp.einsum("nik,nk,njk->nij", vectors, values, vectors)


@jax.custom_jvp
def _roots(blocks: Float[Array, "N C C"]) -> tuple[Float[Array, "N C C"], Float[Array, "N C C"]]:
    roots, inverses, vectors = _in_eigenbasis(blocks)
    return _matrix(vectors, roots), _matrix(vectors, inverses)


@_roots.defjvp
def _derivative_of_roots(primals: tuple[Array], tangents: tuple[Array]) -> tuple[tuple, tuple]:
    """The derivative where the rank stays as it is.

    Eigenvectors of equal eigenvalues have no derivative, the roots have one: from R dR + dR R = dH, in the eigenbasis
    (dR)_ij = (dH)_ij / (r_i + r_j). That of R^+ is then the one of Golub and Pereyra (1973, theorem 4.3).
    """
    (blocks,), (change,) = primals, tangents
    roots, inverses, vectors = _in_eigenbasis(blocks)
    inwards = jnp.einsum("nki,nkl,nlj->nij", vectors, change, vectors)
    sums = roots[:, :, None] + roots[:, None, :]
    of_root = jnp.where(sums == 0, 0.0, inwards / jnp.where(sums == 0, 1.0, sums))
    left, right = inverses[:, :, None], inverses[:, None, :]
    both = (left != 0) & (right != 0)
    of_inverse = jnp.where(both, -left * right, left**2 + right**2) * of_root
    outwards = (jnp.einsum("nik,nkl,njl->nij", vectors, inner, vectors) for inner in (of_root, of_inverse))
    return (_matrix(vectors, roots), _matrix(vectors, inverses)), tuple(outwards)
