"""Products with the NTK Gram matrix A, by J^T and J or with A itself, whichever is cheaper."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import ConfigError, count_operations, shown
from .._tangent import AbstractTangent

_WAYS = ("auto", "matrix_free", "dense")

# The default of `Decomposition`: beyond this many outputs a dense matrix is formed only if the user asks for it.
_DENSE_LIMIT = 4096

# The iterations that a solve to a tolerance counts as. Their number depends on the spectrum, which is not known beforehand.
_USUAL_ITERATIONS = 100


class GramProducts(eqx.Module):
    """v -> A v on outputs (N, C).

    **Attributes:**

    - `tangent`: the tangent on the training inputs.
    - `gram`: A (NC, NC), or None for products by J^T and J.
    """

    tangent: AbstractTangent
    gram: Float[Array, "size size"] | None

    def __call__(self, v: Float[Array, "samples outputs"]) -> Float[Array, "samples outputs"]:
        """A v."""
        if self.gram is None:
            return self.tangent.jvp(self.tangent.vjp(v))
        return (self.gram @ v.reshape(-1)).reshape(v.shape)


def check_products(products: Any) -> None:
    """Check that `products` names a way to compute products with A. **Raises:** `ConfigError`."""
    if not isinstance(products, str) or products not in _WAYS:
        raise ConfigError(f"products = {shown(products)}; expected one of {', '.join(repr(way) for way in _WAYS)}.")


def gram_products(
    tangent: AbstractTangent,
    products: Literal["auto", "matrix_free", "dense"],
    max_iterations: int | None,
) -> GramProducts:
    """Products with A for a solve.

    "auto" forms A if NC is at most 4096 and this is cheaper. Forming A is counted with what follows: a Cholesky factorisation
    for a solve to a tolerance, otherwise a product with A for each iteration. The alternative is a J^T and a J product for each
    iteration.

    **Arguments:**

    - `tangent`: the tangent on the training inputs.
    - `products`: "matrix_free", "dense" or "auto".
    - `max_iterations`: the number of iterations of the solve, or None for a solve to a tolerance.
    """
    check_products(products)
    dense = products == "dense" or (products == "auto" and _dense_is_cheaper(tangent, max_iterations))
    return GramProducts(tangent, tangent.gram() if dense else None)


def _dense_is_cheaper(tangent: AbstractTangent, max_iterations: int | None) -> bool:
    size = tangent.outputs.size
    if size > _DENSE_LIMIT:
        return False
    iterations = min(size, _USUAL_ITERATIONS) if max_iterations is None else max_iterations + 1
    one = count_operations(lambda t, v: t.jvp(t.vjp(v)), tangent, tangent.outputs)
    product = count_operations(jnp.dot, jnp.zeros((size, size)), jnp.zeros(size))
    afterwards = size**3 / 3 if max_iterations is None else iterations * product
    return count_operations(lambda t: t.gram(), tangent) + afterwards <= iterations * one
