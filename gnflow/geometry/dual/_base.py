"""Dual directions, and the abstract base of their oracles."""

import abc
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._core import ConfigError, require_integer, require_number, tree_scale
from ...losses import AbstractLoss
from .._tangent import AbstractTangent
from ..directions import SolveDiagnostics
from ._products import check_products


class DualDirection(eqx.Module):
    """d = -(gamma/N) J^T alpha.

    **Attributes:**

    - `dual_variables`: alpha (N, C), gradients of the samples' losses (without 1/N).
    - `hessian_outputs`: the outputs (N, C) of the Hessian H in the derivative of the direction,
      d' = -gamma J^T (I + gamma H A)^(-1) H f'.
    - `gamma`: the strength of the step, in units of 1/(H A).
    - `diagnostics`: how it was solved for.
    """

    dual_variables: Float[Array, "samples outputs"]
    hessian_outputs: Float[Array, "samples outputs"]
    gamma: Float[Array, ""]
    diagnostics: SolveDiagnostics

    @property
    def coefficients(self) -> Float[Array, "samples outputs"]:
        """alpha/N (N, C), with which d = -gamma J^T (alpha/N)."""
        return self.dual_variables / self.dual_variables.shape[0]

    def displacement(self, tangent: AbstractTangent) -> PyTree:
        """d, a tree like the weights. `tangent` is the one that the direction was computed with."""
        return tree_scale(-self.gamma, tangent.vjp(self.coefficients))


def relative_gap(gap: Float[Array, ""], decrease: Float[Array, ""]) -> Float[Array, ""]:
    """The duality gap over P(0) - D: the fraction that may be missing of the largest possible decrease; 1 if P(d) >= P(0).

    **Arguments:**

    - `gap`: P(d) - D(alpha) >= 0.
    - `decrease`: P(0) - P(d).
    """
    # By rounding P may be above P(0); the whole decrease then counts as missing.
    most = jnp.maximum(gap + decrease, gap)
    return jnp.where(gap == 0, 0.0, gap / jnp.where(most == 0, 1.0, most))


class AbstractDualOracle(eqx.Module):
    """Finds d = argmin (1/N) sum_n q_n(f_n + J_n d) + ||d||^2/(2 gamma), where q_n is a convex model of the loss of sample n.

    Source: Roulet and Blondel, "Dual Gauss-Newton directions for deep learning", TMLR 2024, arXiv 2308.08886. Derived
    in docs/dual.md.

    **Attributes:**

    - `max_iterations`: the largest number of iterations, or None to continue to the tolerance.
    - `tol`: the tolerance at which to stop.
    - `products`: how products with the NTK Gram matrix A are computed: "matrix_free" by one J^T and one J product,
      "dense" with A itself, "auto" by the cheaper of these, as counted from the traced programs.
    """

    max_iterations: eqx.AbstractVar[int | None]
    tol: eqx.AbstractVar[float | Float[Array, ""]]
    products: eqx.AbstractVar[Literal["auto", "matrix_free", "dense"]]

    def __check_init__(self):
        if self.max_iterations is not None:
            require_integer(ConfigError, "max_iterations", self.max_iterations, least=0)
        require_number(ConfigError, "tol", self.tol, least=0.0)
        check_products(self.products)

    @abc.abstractmethod
    def solve(
        self,
        tangent: AbstractTangent,
        loss: AbstractLoss,
        targets: Float[Array, "samples outputs"],
        gamma: Float[Array, ""] | float,
        initial: Float[Array, "samples outputs"] | None = None,
    ) -> DualDirection:
        """The direction at the tangent's weights.

        **Arguments:**

        - `tangent`: the tangent on the training inputs.
        - `loss`: the loss.
        - `targets`: y (N, C), in the loss's canonical form.
        - `gamma`: > 0, in units of 1/(H A).
        - `initial`: dual variables (N, C) to start from, such as those of an earlier solve. They are ignored if they are a
          worse start than none.
        """

    @abc.abstractmethod
    def decrease(
        self,
        loss: AbstractLoss,
        outputs: Float[Array, "samples outputs"],
        targets: Float[Array, "samples outputs"],
        change: Float[Array, "samples outputs"],
    ) -> Float[Array, ""]:
        """L(f) - (1/N) sum_n q_n(f_n + u_n), by how much the model says that the loss falls where the outputs change by u.

        **Arguments:**

        - `loss`, `outputs`, `targets`: the loss, f (N, C) and y (N, C).
        - `change`: u (N, C), to first order J d.
        """

    @abc.abstractmethod
    def length(
        self,
        loss: AbstractLoss,
        outputs: Float[Array, "samples outputs"],
        targets: Float[Array, "samples outputs"],
        change: Float[Array, "samples outputs"],
        ridge: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The t >= 0 at which P(t d) is smallest, for a direction d that descends; 1 for the minimum d of P.

        **Arguments:**

        - `loss`, `outputs`, `targets`: the loss, f (N, C) and y (N, C).
        - `change`: J d (N, C).
        - `ridge`: ||d||^2/gamma.
        """
