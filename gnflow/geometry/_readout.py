"""The exact solution of the weights in which a model is linear."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._core import ModelError
from ._part import tangent_of_part
from ._system import System
from ._tangent import AbstractTangent
from ._truncated_inverse import TruncatedInverse

# Relative to the outputs: at least so accurately must the outputs be linear in the output layer.
_LINEAR = 1e-8


class Readout(eqx.Module):
    """The output layer of a model as a linear least-squares problem: f = f_0 + J v with the output weights v.

    Its solution of minimum norm is v = J^T (J J^T)^+ (y - f_0), where eigenvalues of J J^T up to a share of the largest count
    as zero. The bias of an output layer is one of its weights. J is the features, J J^T their Gram matrix. Source: [A] Arbel et
    al. 2023, arXiv 2302.02904, experiments (there without a bias, and with the cut-off 1e-10).

    **Attributes:**

    - `weights`: the trained weights.
    - `group`: the output layer, a tree of booleans like `weights`.
    - `tangent`: the tangent of the training outputs for the output layer alone.
    - `inverse`: the decomposition of J J^T, (NC, NC).
    - `targets`: y - f_0 (N, C), where f_0 are the outputs with v = 0.
    """

    weights: PyTree
    group: PyTree
    tangent: AbstractTangent
    inverse: TruncatedInverse
    targets: Float[Array, "samples outputs"]

    @classmethod
    def of(cls, system: System, weights: PyTree, group: PyTree) -> "Readout":
        """The problem at `weights`, for the output layer `group`."""
        without = jax.tree.map(lambda leaf, here: jnp.zeros_like(leaf) if here else leaf, weights, group)
        tangent = tangent_of_part(system, without, group)
        inverse = TruncatedInverse.of(tangent.gram())
        return cls(weights, group, tangent, inverse, system.problem.y_train - tangent.outputs)

    def solve(self, cutoff: float | Float[Array, ""]) -> PyTree:
        """The weights with the solution in the output layer.

        **Arguments:**

        - `cutoff`: the share of the largest eigenvalue up to which eigenvalues count as zero.
        """
        coefficients = self.inverse.solve(self.targets.reshape(-1, 1), cutoff).reshape(self.targets.shape)
        solved = self.tangent.vjp(coefficients)  # None where a weight is not in the output layer
        return eqx.combine(solved, self.weights)

    def rank(self, cutoff: float | Float[Array, ""]) -> Int[Array, ""]:
        """The number of eigenvalues of J J^T that the solution uses."""
        return self.inverse.rank(cutoff)


def require_linear(system: System, weights: PyTree, name: str) -> PyTree:
    """The group of trained weights called `name`, a tree of booleans like `weights`.

    **Raises:** `ModelError` if there are no such weights, or if the outputs are not linear in them.
    """
    group = system.named(weights, name)
    kind = type(system.structure).__name__
    ones = jax.tree.map(lambda leaf, here: jnp.ones_like(leaf) if here else leaf, weights, group)
    without = jax.tree.map(lambda leaf, here: jnp.zeros_like(leaf) if here else leaf, weights, group)
    tangent = tangent_of_part(system, without, group)
    step = jax.tree.map(lambda leaf, here: leaf if here else None, ones, group)
    predicted, found = tangent.outputs + tangent.jvp(step), system.outputs(ones)
    if not bool(jnp.max(jnp.abs(found - predicted)) <= _LINEAR * (1 + jnp.max(jnp.abs(found)))):
        raise ModelError(
            f"the outputs of {kind} are not linear in the weights called {name!r}, so these have no exact solution; name the "
            "output layer by `readout`."
        )
    return group
