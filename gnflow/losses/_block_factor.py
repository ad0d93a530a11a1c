"""The factor of an output metric that is given by its blocks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._factors import AbstractOutputFactor

# Eigenvalues of a block below this times C times its largest one are rounding, and count as zeros.
_ROUNDING = 8 * float(jnp.finfo(jnp.float64).eps)


class BlockFactor(AbstractOutputFactor):
    """H = blockdiag(H_n) and R = blockdiag(sqrt(H_n)), the symmetric square roots, by one eigendecomposition per sample.

    Eigenvalues below 8 C eps times the largest of their block (eps = 2.2e-16) count as zeros: `whiten` leaves their directions
    out, and `unseen` holds the gradient along them. A metric that underflows therefore needs a factor in logarithms
    (`SoftmaxFactor`). A block with an eigenvalue below minus that number is not a metric and becomes nan.

    The factor takes N C^2 numbers and N C^3 operations. `BlockFactor.of(blocks)` makes it.

    **Arguments:**

    - `root`: the roots, (N, C, C).
    - `inverse`: their Moore-Penrose inverses, (N, C, C).
    """

    root: Float[Array, "N C C"]
    inverse: Float[Array, "N C C"]

    @classmethod
    def of(cls, blocks: Float[Array, "N C C"]) -> "BlockFactor":
        """The factor of blockdiag(`blocks`) for symmetric, positive semi-definite blocks (N, C, C)."""
        return cls(*_roots((blocks + jnp.swapaxes(blocks, 1, 2)) / 2))

    def product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(H_n) v_n for each sample."""
        return _blockwise(self.root, v)

    def transpose_product(self, v: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """The same: the roots are symmetric."""
        return _blockwise(self.root, v)

    def whiten(self, g: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """sqrt(H_n)^+ g_n for each sample."""
        return _blockwise(self.inverse, g)


def _blockwise(blocks: Float[Array, "N C C"], v: Float[Array, "N C"]) -> Float[Array, "N C"]:
    return jnp.einsum("nij,nj->ni", blocks, v)


def _in_eigenbasis(blocks: Float[Array, "N C C"]) -> tuple[Array, Array, Array]:
    """The roots of the eigenvalues, their inverses (both 0 for eigenvalues below rounding), and the eigenvectors."""
    eigenvalues, vectors = jnp.linalg.eigh(blocks)
    rounding = _ROUNDING * blocks.shape[1] * jnp.max(jnp.abs(eigenvalues), axis=1, keepdims=True)
    seen = eigenvalues > rounding
    roots = jnp.sqrt(jnp.where(seen, eigenvalues, 1.0))
    # A curvature more negative than rounding means that the loss is not convex there: its Hessian has no factor.
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
    """The derivative of the roots and their inverses at constant rank.

    The eigenvectors of equal eigenvalues have no derivative, but the roots do: R dR + dR R = dH gives, in the eigenbasis,
    (dR)_ij = (dH)_ij / (r_i + r_j). The derivative of R^+ follows from Golub and Pereyra (1973, theorem 4.3).
    """
    (blocks,), (change,) = primals, tangents
    roots, inverses, vectors = _in_eigenbasis(blocks)
    inwards = jnp.einsum("nki,nkl,nlj->nij", vectors, change, vectors)
    sums = roots[:, :, None] + roots[:, None, :]
    of_root = jnp.where(sums == 0, 0.0, inwards / jnp.where(sums == 0, 1.0, sums))
    # d(R^+) = -R^+ dR R^+ on the image of R, and (R^+)^2 dR between the image and the kernel, where one inverse is 0.
    left, right = inverses[:, :, None], inverses[:, None, :]
    both = (left != 0) & (right != 0)
    of_inverse = jnp.where(both, -left * right, left**2 + right**2) * of_root
    outwards = (jnp.einsum("nik,nkl,njl->nij", vectors, inner, vectors) for inner in (of_root, of_inverse))
    return (_matrix(vectors, roots), _matrix(vectors, inverses)), tuple(outwards)
