"""What it means to linearise a model at a point: outputs, J, J^T and Gram matrices of one batch of inputs."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class AbstractTangent(eqx.Module):
    """The model's outputs on n inputs together with their Jacobian J (nC x P) with respect to the trained weights.

    J is never formed whole. What the outputs, J and the Gram matrix have in common is computed once, when the tangent is
    made. Outputs are (n, C); as rows of J and of a Gram matrix, output c of sample n has the index n C + c.

    **Attributes:** `outputs` (n, C).
    """

    outputs: eqx.AbstractVar[Float[Array, "samples outputs"]]

    @abc.abstractmethod
    def jvp(self, displacement: PyTree) -> Float[Array, "samples outputs"]:
        """J r for a displacement r of the weights: the outputs' first-order change, (n, C)."""

    @abc.abstractmethod
    def vjp(self, coefficients: Float[Array, "samples outputs"]) -> PyTree:
        """J^T a for coefficients a (n, C): a tree like the weights."""

    @abc.abstractmethod
    def cross_gram(self, other: "AbstractTangent") -> Float[Array, "rows columns"]:
        """J J'^T, (nC, n'C), with the Jacobian J' of a tangent of the same model at the same weights on other inputs.

        With test inputs here and training inputs there it is the test kernel K(x, X).
        """

    def gram(self) -> Float[Array, "rows rows"]:
        """The NTK Gram matrix A = J J^T, (nC, nC), symmetric positive semi-definite (Jacot et al. 2018)."""
        return self.cross_gram(self)

    def gram_operator(self) -> Callable[[Float[Array, "samples outputs"]], Float[Array, "samples outputs"]]:
        """v -> A v for many products: one J^T and one J product each, or what is cheaper for a model in closed form."""
        return lambda coefficients: self.jvp(self.vjp(coefficients))

    def sample_blocks(self) -> Float[Array, "samples outputs outputs"]:
        """The blocks of A on its diagonal, (n, C, C): of each sample with itself.

        Without a closed form they are taken from the whole Gram matrix.
        """
        samples, outputs = self.outputs.shape
        return jnp.einsum("ncnd->ncd", self.gram().reshape(samples, outputs, samples, outputs))

    def projected_gram(self, projections: Float[Array, "count samples outputs"]) -> Float[Array, "samples samples"]:
        """sum_k v_kn^T A_nm v_km, (n, n), for `projections` v (k, n, C): the Gram matrix of the scalars v_kn . f(x_n).

        Without a closed form it is taken from the whole Gram matrix.
        """
        samples, outputs = self.outputs.shape
        blocks = self.gram().reshape(samples, outputs, samples, outputs)
        return jnp.einsum("knc,ncmd,kmd->nm", projections, blocks, projections)
