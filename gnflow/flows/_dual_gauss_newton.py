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

    With the quadratic model w' = -J^T ((1 - theta) I + theta H A)^(-1) g, theta = gamma/(1 + gamma), H the Hessian of
    the loss: gradient flow with mobility 1 as gamma -> 0, undamped Gauss-Newton flow in the Hessian metric as
    gamma -> infinity; it is 1 + 1/gamma times `GaussNewtonFlow("hessian", Constant(1/gamma))`. A step of length theta in
    `iterate` is d itself. Source: Roulet and Blondel, TMLR 2024, arXiv 2308.08886. Derived in docs/dual.md.

    For a model without kinks the loss never increases along it, whatever loss, oracle and number of iterations.

    **Arguments:**

    - `gamma` > 0, in units of 1/(H A): how far the model is trusted.
    - `model`: q_n, "quadratic" (the quadratic model of l_n at f_n: Gauss-Newton) or "exact" (l_n itself: prox-linear).
    - `max_iterations`: of the solve; None to go on to the tolerance. Any number gives a descent
      direction; with the quadratic model 0 gives the gradient's.
    - `tol`: at which the solve stops; what it is relative to is the oracle's (`gnflow.geometry.dual`).
    - `products`: with the Gram matrix A: "matrix_free", "dense" or "auto", the cheaper of these.

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
        """What finds d."""
        return dual_oracle_kinds[self.model](self.max_iterations, self.tol, self.products)

    def never_ascends(self, system: System) -> bool:
        """For models without kinks, with either model of the loss and any number of iterations: every d is a direction of
        descent (docs/dual.md)."""
        return system.has_kinks is False

    @property
    def solves_iteratively(self) -> bool:
        """True; but where the oracle finds a factorisation cheaper, it leaves next to no residual."""
        return True

    def residual_amplification(self, largest_eigenvalue: Float[Array, ""]) -> Float[Array, ""] | float:
        """1 + gamma ||H A||: the right-hand side is large for a large gamma (docs/theorems/sandwich.md)."""
        return 1 + self.gamma * largest_eigenvalue

    def gain(self, system: System) -> InverseGain | None:
        """k = (1 + 1/gamma)/(lam + 1/gamma), in the Hessian metric; None for the exact model, which is no function of B."""
        if self.model != "quadratic":
            return None
        return InverseGain(metric=HessianMetric(), damping=Constant(1 / self.gamma), mobility=1 + 1 / self.gamma)

    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """a = (1 + gamma) alpha/N with the dual variables alpha of d = -(gamma/N) J^T alpha."""
        return self._direction(self._solve(tangent, system))

    def linearisation(
        self, time: Float[Array, ""], tangent: AbstractTangent, system: System, decomposition: Decomposition
    ) -> Linearisation:
        """W = -(1 + gamma) J^T (I + gamma H A)^(-1) H J, H at f for the quadratic model and at f + J d for the exact
        one.

        Exact up to the change of J and, with the quadratic model, of H. A direction that is cut off after
        `max_iterations` depends on the gradient in a way that has no such form. It gets the W of the whole solve, as
        good as the iterations are: the order of a solver does not suffer, but modes that they have not reached limit
        its steps as they do an explicit solver's.
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
