"""The tangent of a model at a point: outputs, J, J^T and Gram matrices on one batch of inputs."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class AbstractTangent(eqx.Module):
    """The model's outputs on n inputs together with their Jacobian J (nC x P) with respect to the trained weights.

    J is never formed as a whole. What the outputs, J and the Gram matrix have in common is computed once, when the tangent is
    made. Output c of sample n has the index n C + c among the rows of J and of a Gram matrix.

    **Attributes:** `outputs`: the outputs (n, C).
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
        """J J'^T, (nC, n'C), with the Jacobian J' of another tangent of the same model at the same weights.

        If this tangent is on test inputs and the other on training inputs, it is the test kernel K(x, X).
        """

    def gram(self) -> Float[Array, "rows rows"]:
        """The NTK Gram matrix A = J J^T, (nC, nC), symmetric positive semi-definite (Jacot et al. 2018)."""
        return self.cross_gram(self)

    @property
    def jacobian_width(self) -> int | None:
        """P, if `jacobian` forms J as a matrix; None if it does not, as here."""
        return None

    def jacobian(self) -> Float[Array, "rows weights"]:
        """J as a matrix (nC, P), its columns in the order of the weights' leaves, where `jacobian_width` is known.

        Where there are fewer weights than outputs it is smaller than A, and decompositions of it keep digits that A loses.
        """
        raise NotImplementedError(f"{type(self).__name__} does not form J")

    def gram_operator(self) -> Callable[[Float[Array, "samples outputs"]], Float[Array, "samples outputs"]]:
        """v -> A v, for many products: by one J^T and one J product each, or cheaper where a closed form allows it."""
        return lambda coefficients: self.jvp(self.vjp(coefficients))

    def sample_blocks(self) -> Float[Array, "samples outputs outputs"]:
        """The diagonal blocks of A, (n, C, C): each sample with itself.

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
