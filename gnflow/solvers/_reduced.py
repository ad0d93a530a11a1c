"""Functions of the linearised flow, psi(s W), applied to vectors of weights."""

import math
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_add_scaled
from ..geometry import Linearisation
from ._phi import phi_functions

# psi = sum_k c_k phi_k, by k.
Psi = Mapping[int, float | Array]


class ReducedVector(eqx.Module):
    """A vector of weights x = rest + J^T q, with what psi(s W) x needs of it.

    **Attributes:** `rest`: a tree like the weights, or None for zero; `coefficients`: q (NC,); `amplitudes`: Rt J x (r,),
    along which W acts as -diag(beta).
    """

    rest: PyTree | None
    coefficients: Float[Array, " size"]
    amplitudes: Float[Array, " rank"]


def reduce(linearisation: Linearisation, rest: PyTree | None, coefficients: Float[Array, " size"]) -> ReducedVector:
    """rest + J^T q with its amplitudes."""
    pushed = linearisation.gram_product(coefficients)
    if rest is not None:
        pushed = pushed + linearisation.push(rest)
    return ReducedVector(rest, coefficients, linearisation.right @ pushed)


def combination(vectors: Sequence[ReducedVector], weights: Sequence[float]) -> ReducedVector:
    """sum_j weights_j x_j."""

    def total(*leaves: Array) -> Array:
        return sum((weight * leaf for weight, leaf in zip(weights, leaves, strict=True)), start=jnp.zeros(()))

    return jax.tree.map(total, *vectors)


def apply_functions(
    linearisation: Linearisation, span: Float[Array, ""], sums: Sequence[Sequence[tuple[Psi, ReducedVector]]]
) -> list[tuple[PyTree, Float[Array, " rank"]]]:
    """For each sum, sum_j psi_j(s W) x_j with s = `span`: a tree like the weights, and its amplitudes.

    All sums share one J^T product.
    """
    highest = max(max(psi) for parts in sums for psi, _ in parts)
    phi = phi_functions(-span * linearisation.rates, highest + 1)
    pulled = linearisation.pull_all(jnp.stack([_coefficients(linearisation, span, phi, parts) for parts in sums]))
    results = []
    for index, parts in enumerate(sums):
        tree = jax.tree.map(lambda leaf, index=index: leaf[index], pulled)
        amplitudes = jnp.zeros(())
        for psi, vector in parts:
            amplitudes = amplitudes + sum(c * phi[k] for k, c in psi.items()) * vector.amplitudes
            if vector.rest is not None:
                tree = tree_add_scaled(tree, _at_zero(psi), vector.rest)
        results.append((tree, amplitudes))
    return results


def _coefficients(
    linearisation: Linearisation,
    span: Float[Array, ""],
    phi: Sequence[Float[Array, " rank"]],
    parts: Sequence[tuple[Psi, ReducedVector]],
) -> Float[Array, " size"]:
    """q of sum_j psi_j(s W) x_j = ... + J^T q.

    psi(sW) x = psi(0) x - s J^T L psi_plus(-s beta) Rt J x with psi_plus(z) = (psi(z) - psi(0))/z: phi_k becomes phi_(k+1).
    """
    coefficients, moved = jnp.zeros(()), jnp.zeros(())
    for psi, vector in parts:
        coefficients = coefficients + _at_zero(psi) * vector.coefficients
        moved = moved + sum(c * phi[k + 1] for k, c in psi.items()) * vector.amplitudes
    return coefficients - span * (linearisation.left @ moved)


def _at_zero(psi: Psi) -> float | Array:
    return sum(c / math.factorial(k) for k, c in psi.items())
