"""What a preconditioner of conjugate gradients is."""

import abc
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from ...losses import AbstractOutputFactor
from .._tangent import AbstractTangent

Product = Callable[[Float[Array, "samples outputs"]], Float[Array, "samples outputs"]]


class AbstractPreconditioner(eqx.Module):
    """An approximation P of B + eps, B = R^T A R, that is made anew in every velocity, from the state at hand: nothing is kept,
    so a flow stays a function of its weights. How good P is decides the number of iterations and nothing else: solutions
    are judged by their residual."""

    @abc.abstractmethod
    def inverse(
        self, tangent: AbstractTangent, factor: AbstractOutputFactor, shift: Float[Array, ""], product: Product
    ) -> Product:
        """v -> P^(-1) v on (N, C), symmetric positive definite.

        **Arguments:** `tangent`: has A; `factor`: R; `shift`: eps; `product`: with B.
        """
