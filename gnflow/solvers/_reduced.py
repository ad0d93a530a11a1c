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

# The coefficients c_k of psi = sum_k c_k phi_k, by k.
Psi = Mapping[int, float | Array]


class ReducedVector(eqx.Module):
    """A vector of weights x = rest + J^T q, in the form that psi(s W) x needs.

    **Attributes:**

    - `rest`: a tree like the weights, or None for zero.
    - `coefficients`: q (NC,).
    - `amplitudes`: Rt J x (r,). W acts on them as -diag(beta), with weight decay as -diag(lambda + beta).
    """

    rest: PyTree | None
    coefficients: Float[Array, " size"]
    amplitudes: Float[Array, " rank"]


def reduce(linearisation: Linearisation, rest: PyTree | None, coefficients: Float[Array, " size"]) -> ReducedVector:
    """The vector rest + J^T q with its amplitudes, for q = `coefficients`."""
    pushed = linearisation.gram_product(coefficients)
    if rest is not None:
        pushed = pushed + linearisation.push(rest)
    return ReducedVector(rest, coefficients, linearisation.right @ pushed)


def combination(vectors: Sequence[ReducedVector], weights: Sequence[float]) -> ReducedVector:
    """The linear combination sum_j weights_j x_j of `vectors` x_j."""

    def total(*leaves: Array) -> Array:
        return sum((weight * leaf for weight, leaf in zip(weights, leaves, strict=True)), start=jnp.zeros(()))

    return jax.tree.map(total, *vectors)


class _Functions(NamedTuple):
    """phi_0, phi_1, ... at the eigenvalues of s W.

    **Attributes:**

    - `at_modes`: their values at -s (lambda + beta), each (r,).
    - `at_rest`: their values at -s lambda, for what the modes leave out.
    - `between`: the divided differences (`at_rest` - `at_modes`)/(s beta), each (r,).
    """

    at_modes: Sequence[Float[Array, " rank"]]
    at_rest: Sequence[float | Float[Array, ""]]
    between: Sequence[Float[Array, " rank"]]

    @classmethod
    def of(cls, linearisation: Linearisation, span: Float[Array, ""], highest: int) -> "_Functions":
        """phi_0 to phi_`highest` with s = `span`."""
        modes = -span * linearisation.all_rates
        if linearisation.decay is None:
            # Without decay the divided difference (phi_k(0) - phi_k(-z))/z is phi_(k+1)(-z), which needs no subtraction.
            phi = phi_functions(modes, highest + 1)
            return cls(phi[:-1], [1 / math.factorial(k) for k in range(highest + 1)], phi[1:])
        at_rest, at_modes, between = divided_phi_functions(-span * linearisation.decay, modes, highest)
        return cls(at_modes, at_rest, between)


def apply_functions(
    linearisation: Linearisation, span: Float[Array, ""], sums: Sequence[Sequence[tuple[Psi, ReducedVector]]]
) -> list[tuple[PyTree, Float[Array, " rank"]]]:
    """sum_j psi_j(s W) x_j with s = `span` for each of several `sums`.

    All sums share one J^T product, the most expensive part.

    **Returns:** for each sum a tree like the weights, and its amplitudes (r,).
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
    """The coefficients q of sum_j psi_j(s W) x_j = ... + J^T q.

    psi(sW) x = psi(-s lambda) x - s J^T L psi[-s lambda, -s (lambda + beta)] Rt J x, where psi[., .] is a divided difference.
    """
    coefficients, moved = jnp.zeros(()), jnp.zeros(())
    for psi, vector in parts:
        coefficients = coefficients + _combined(psi, phi.at_rest) * vector.coefficients
        moved = moved + _combined(psi, phi.between) * vector.amplitudes
    return coefficients - span * (linearisation.left @ moved)


def _combined(psi: Psi, phi: Sequence[Any]) -> Any:
    return sum(c * phi[k] for k, c in psi.items())
