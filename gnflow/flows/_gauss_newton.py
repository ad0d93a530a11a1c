"""Gauss-Newton flow."""

import equinox as eqx
from jaxtyping import Array, Float

from ..geometry import (
    AbstractOutputMetric,
    AbstractTangent,
    Direction,
    IdentityMetric,
    System,
    get_output_metric,
)
from ..geometry.damping import AbstractDamping, SmallestEigenvalue
from ..geometry.directions import AbstractDirectionSolver, TruncatedEigh
from ._base import AbstractOutputFlow


class GaussNewtonFlow(AbstractOutputFlow):
    """w' = -(J^T H J + eps I)^(-1) J^T g = -J^T (H A + eps I)^(-1) g (push-through identity).

    The second, dual form is what is computed: NC unknowns however many weights there are. If A is invertible,
    f' = -(H + eps A^(-1))^(-1) g. Sources: [A] (arXiv 2302.02904), equation of its Section 3; natural gradient: Amari 1998.

    **Arguments:**

    - `metric`: H on outputs: "identity" ([A]'s experiments), "hessian" (generalised Gauss-Newton), "fisher" (natural
      gradient), or an output metric object. The unit of flow time depends on it: with the squared loss the residual decays
      at rate 1/N for the identity and 1 for the Hessian.
    - `damping`: the rule for eps >= 0, in units of H A.
    - `solver`: the direction solver; truncated `eigh` is safe on rank-deficient Gram matrices.

    **Raises:** `ConfigError` for an unknown metric name.
    """

    metric: AbstractOutputMetric = eqx.field(converter=get_output_metric, default=IdentityMetric())
    damping: AbstractDamping = SmallestEigenvalue(factor=1.0, floor=1e-7)
    solver: AbstractDirectionSolver = TruncatedEigh()

    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """a = (H A + eps)^(-1) g with rank, damping and residual."""
        targets = system.problem.y_train
        factor = self.metric.factor(system.loss, tangent.outputs, targets)
        whitened_gradient = factor.whiten(system.loss.gradient(tangent.outputs, targets))
        return self.solver.solve(tangent, factor, whitened_gradient, self.damping, time)
