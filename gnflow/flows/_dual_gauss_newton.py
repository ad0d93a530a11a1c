"""The flow of dual (prox-linear) Gauss-Newton directions, between gradient and Gauss-Newton flow."""

from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import integer_field, look_up, number_field
from ..geometry import (
    AbstractTangent,
    Decomposition,
    Direction,
    HessianMetric,
    Linearisation,
    System,
    linearise_with_hessian,
)
from ..geometry.damping import Constant
from ..geometry.dual import AbstractDualOracle, DualDirection, dual_oracle_kinds
from ._base import AbstractLinearisedFlow
from ._gain import InverseGain

_LIMITS = "Its limits are flows of their own: GradientFlow for 0, GaussNewtonFlow('hessian') for infinity."


class DualGaussNewtonFlow(AbstractLinearisedFlow):
    """w' = (1 + 1/gamma) d(gamma), d = argmin (1/N) sum_n q_n(f_n + J_n d) + ||d||^2/(2 gamma), solved in the dual.

    With the quadratic model w' = -J^T ((1 - theta) I + theta H A)^(-1) g, where theta = gamma/(1 + gamma) and H is the Hessian
    of the loss. It is gradient flow with mobility 1 as gamma -> 0, undamped Gauss-Newton flow in the Hessian metric as
    gamma -> infinity, and 1 + 1/gamma times `GaussNewtonFlow("hessian", Constant(1/gamma))` in between. A step of length theta
    in `iterate` is d itself. Source: Roulet and Blondel, TMLR 2024, arXiv 2308.08886. Derived in docs/dual.md.

    For a model without kinks the loss never increases along the flow, for any loss, oracle and number of iterations.

    **Arguments:**

    - `gamma`: how far the model is trusted, positive, in units of 1/(H A).
    - `model`: q_n: "quadratic" (the quadratic model of l_n at f_n: Gauss-Newton) or "exact" (l_n itself: prox-linear).
    - `max_iterations`: the largest number of iterations of the solve, or None to iterate to the tolerance. Any number gives a
      descent direction; with the quadratic model 0 gives that of the gradient.
    - `tol`: the tolerance of the solve. The oracle defines what it is relative to (`gnflow.geometry.dual`).
    - `products`: how products with the Gram matrix A are computed: "matrix_free", "dense" or "auto", the cheaper of the two.

    **Raises:** `ConfigError` for other numbers or names.
    """

    rests_with_gradient: ClassVar[bool] = True
    is_stiff: ClassVar[bool] = True

    gamma: float = number_field("gamma", default=1.0, above=0.0, remedy=_LIMITS)
    model: Literal["quadratic", "exact"] = "quadratic"
    max_iterations: int | None = integer_field("max_iterations", default=None, static=True, least=0)
    tol: float = number_field("tol", default=1e-8, least=0.0)
    products: Literal["auto", "matrix_free", "dense"] = "auto"

    def __check_init__(self):
        look_up(self.model, dual_oracle_kinds, "model of a dual direction")
        _ = self.oracle  # checks the rest

    @property
    def oracle(self) -> AbstractDualOracle:
        """The oracle that computes d."""
        return dual_oracle_kinds[self.model](self.max_iterations, self.tol, self.products)

    def never_ascends(self, system: System) -> bool:
        """True for models without kinks: with either model of the loss and any number of iterations every d is a descent
        direction (docs/dual.md)."""
        return system.has_kinks is False

    @property
    def solves_iteratively(self) -> bool:
        """True, although the oracle leaves almost no residual if it finds a factorisation cheaper."""
        return True

    def residual_amplification(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""] | float:
        """1 + gamma ||H A||, because the right-hand side is large for a large gamma (docs/theorems/sandwich.md)."""
        return 1 + self.gamma * largest_eigenvalue

    def gain(self, system: System) -> InverseGain | None:
        """k = (1 + 1/gamma)/(lam + 1/gamma) in the Hessian metric; None for the exact model, which is not a function of B."""
        if self.model != "quadratic":
            return None
        return InverseGain(metric=HessianMetric(), damping=Constant(1 / self.gamma), mobility=1 + 1 / self.gamma)

    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """a = (1 + gamma) alpha/N with the dual variables alpha of d = -(gamma/N) J^T alpha."""
        return self._direction(self._solve(tangent, system))

    def linearisation(
        self, time: Float[Array, ""], tangent: AbstractTangent, system: System, decomposition: Decomposition
    ) -> Linearisation:
        """W = -(1 + gamma) J^T (I + gamma H A)^(-1) H J, with H at f for the quadratic model and at f + J d for the exact one.

        It is exact up to the change of J and, with the quadratic model, of H. A direction that is cut off after
        `max_iterations` depends on the gradient in another way and gets the W of the whole solve. This does not lower the order
        of a solver, but modes that the iterations have not reached limit its steps like those of an explicit solver.
        """
        solution = self._solve(tangent, system)
        factor = system.loss.hessian_factor(solution.hessian_outputs, system.problem.y_train)
        modes = decomposition.modes(tangent, factor)
        gains = (1 + solution.gamma) / (1 + solution.gamma * jnp.maximum(modes.eigenvalues, 0.0))
        return linearise_with_hessian(tangent, self._direction(solution), modes, gains, factor)

    def _solve(self, tangent: AbstractTangent, system: System) -> DualDirection:
        return self.oracle.solve(tangent, system.loss, system.problem.y_train, self.gamma)

    def _direction(self, solution: DualDirection) -> Direction:
        return Direction((1 + solution.gamma) * solution.coefficients, solution.diagnostics)
