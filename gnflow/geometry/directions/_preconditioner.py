"""The abstract base of preconditioners of conjugate gradients."""

import abc
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from ...losses import AbstractOutputFactor
from .._tangent import AbstractTangent

Product = Callable[[Float[Array, "samples outputs"]], Float[Array, "samples outputs"]]


class AbstractPreconditioner(eqx.Module):
    """An approximation P of B + eps, where B = R^T A R.

    P is computed anew in every velocity, from the present state alone, so that a flow stays a function of its weights. The
    quality of P affects only the number of iterations, because solutions are judged by their residual.
    """

    @abc.abstractmethod
    def inverse(
        self, tangent: AbstractTangent, factor: AbstractOutputFactor, shift: Float[Array, ""], product: Product
    ) -> Product:
        """v -> P^(-1) v on (N, C), symmetric positive definite.

        **Arguments:**

        - `tangent`: the tangent on the training inputs, with A = J J^T.
        - `factor`: R.
        - `shift`: eps, in units of B.
        - `product`: v -> B v on (N, C).
        """
