"""The tangent of a model whose weights have an inner product of their own."""

from collections.abc import Callable, Iterable
from typing import Any

from jaxtyping import Array, Float, PyTree

from .._core import tree_multiply
from ._part import tangent_of_part
from ._system import System
from ._tangent import AbstractTangent


class ScaledTangent(AbstractTangent):
    """A tangent with the inner product <r, s> = r^T D^-1 s of weights, for a diagonal D > 0 that is constant in each group.

    J is that of the model. Its adjoint is D J^T, which `vjp` gives, and the Gram matrix is A = J D J^T = sum_k D_k J_k J_k^T
    over the groups. So it is the tangent of the same model in the weights D^(-1/2) w, and what holds of tangents holds of it,
    with J^T read as the adjoint.

    **Attributes:**

    - `outputs`: the outputs (n, C).
    - `whole`: the tangent of the model.
    - `scales`: D, a tree like the weights with a number for each leaf.
    - `parts`: for each group its D_k and the tangent for its weights alone.
    """

    outputs: Float[Array, "samples outputs"]
    whole: AbstractTangent
    scales: PyTree
    parts: tuple[tuple[Any, AbstractTangent], ...]

    def jvp(self, displacement: PyTree) -> Float[Array, "samples outputs"]:
        """J r."""
        return self.whole.jvp(displacement)

    def vjp(self, coefficients: Float[Array, "samples outputs"]) -> PyTree:
        """D J^T a."""
        return tree_multiply(self.scales, self.whole.vjp(coefficients))

    def cross_gram(self, other: AbstractTangent) -> Float[Array, "rows columns"]:
        """J D J'^T."""
        assert isinstance(other, ScaledTangent)
        pairs = zip(self.parts, other.parts, strict=True)
        return _sum(scale * part.cross_gram(its) for (scale, part), (_, its) in pairs)

    def gram_operator(self) -> Callable[[Float[Array, "samples outputs"]], Float[Array, "samples outputs"]]:
        """v -> A v."""
        products = [(scale, part.gram_operator()) for scale, part in self.parts]
        return lambda coefficients: _sum(scale * product(coefficients) for scale, product in products)

    def sample_blocks(self) -> Float[Array, "samples outputs outputs"]:
        """The diagonal blocks of A, (n, C, C)."""
        return _sum(scale * part.sample_blocks() for scale, part in self.parts)

    def projected_gram(self, projections: Float[Array, "count samples outputs"]) -> Float[Array, "samples samples"]:
        """sum_k v_kn^T A_nm v_km, (n, n)."""
        return _sum(scale * part.projected_gram(projections) for scale, part in self.parts)


def scaled_tangent(
    system: System, weights: PyTree, scales: PyTree, groups: Iterable[tuple[Any, PyTree]]
) -> ScaledTangent:
    """The tangent of the training outputs at `weights` with the inner product r^T D^-1 s.

    **Arguments:**

    - `system`: the problem and the model's structure.
    - `weights`: the trained weights.
    - `scales`: D, a tree like `weights` with a number for each leaf.
    - `groups`: D_k and a tree of booleans like `weights`, for disjoint groups that are together all weights.
    """
    whole = system.tangent(weights)
    return ScaledTangent(
        whole.outputs, whole, scales, tuple((scale, tangent_of_part(system, weights, group)) for scale, group in groups)
    )


def _sum(terms: Iterable[Array]) -> Array:
    first, *rest = terms
    return sum(rest, start=first)
