"""Functions of the linearised flow, psi(s W), applied to vectors of weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import tree_add_scaled
from ..geometry import Linearisation
from ._phi import divided_phi_functions, phi_functions

# psi = sum_k c_k phi_k, by k.
Psi = Mapping[int, float | Array]


class ReducedVector(eqx.Module):
    """A vector of weights x = rest + J^T q, with what psi(s W) x needs of it.

    **Attributes:** `rest`: a tree like the weights, or None for zero; `coefficients`: q (NC,); `amplitudes`: Rt J x (r,),
    along which W acts as -diag(beta), or with weight decay -diag(lambda + beta).
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


class _Functions(NamedTuple):
    """phi_0, phi_1, ... where W is applied. **Attributes:** `at_modes`: at -s (lambda + beta), (r,); `at_rest`: at -s lambda,
    what the modes leave out; `between`: (`at_rest` - `at_modes`)/(s beta), their divided differences, (r,)."""

    at_modes: Sequence[Float[Array, " rank"]]
    at_rest: Sequence[float | Float[Array, ""]]
    between: Sequence[Float[Array, " rank"]]

    @classmethod
    def of(cls, linearisation: Linearisation, span: Float[Array, ""], highest: int) -> "_Functions":
        """With s = `span`."""
        modes = -span * linearisation.all_rates
        if linearisation.decay is None:
            # (phi_k(0) - phi_k(-z))/z is phi_(k+1)(-z).
            phi = phi_functions(modes, highest + 1)
            return cls(phi[:-1], [1 / math.factorial(k) for k in range(highest + 1)], phi[1:])
        at_rest, at_modes, between = divided_phi_functions(-span * linearisation.decay, modes, highest)
        return cls(at_modes, at_rest, between)


def apply_functions(
    linearisation: Linearisation, span: Float[Array, ""], sums: Sequence[Sequence[tuple[Psi, ReducedVector]]]
) -> list[tuple[PyTree, Float[Array, " rank"]]]:
    """For each sum, sum_j psi_j(s W) x_j with s = `span`: a tree like the weights, and its amplitudes.

    All sums share one J^T product.
    """
    highest = max(max(psi) for parts in sums for psi, _ in parts)
    phi = _Functions.of(linearisation, span, highest)
    pulled = linearisation.pull_all(jnp.stack([_coefficients(linearisation, span, phi, parts) for parts in sums]))
    results = []
    for index, parts in enumerate(sums):
        tree = jax.tree.map(lambda leaf, index=index: leaf[index], pulled)
        amplitudes = jnp.zeros(())
        for psi, vector in parts:
            amplitudes = amplitudes + _combined(psi, phi.at_modes) * vector.amplitudes
            if vector.rest is not None:
                tree = tree_add_scaled(tree, _combined(psi, phi.at_rest), vector.rest)
        results.append((tree, amplitudes))
    return results


def _coefficients(
    linearisation: Linearisation,
    span: Float[Array, ""],
    phi: _Functions,
    parts: Sequence[tuple[Psi, ReducedVector]],
) -> Float[Array, " size"]:
    """q of sum_j psi_j(s W) x_j = ... + J^T q.

    psi(sW) x = psi(-s lambda) x - s J^T L psi[-s lambda, -s (lambda + beta)] Rt J x, psi[., .] being divided differences.
    """
    coefficients, moved = jnp.zeros(()), jnp.zeros(())
    for psi, vector in parts:
        coefficients = coefficients + _combined(psi, phi.at_rest) * vector.coefficients
        moved = moved + _combined(psi, phi.between) * vector.amplitudes
    return coefficients - span * (linearisation.left @ moved)


def _combined(psi: Psi, phi: Sequence[Any]) -> Any:
    return sum(c * phi[k] for k, c in psi.items())
