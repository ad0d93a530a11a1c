"""Gauss-Newton flow."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import instance_field
from ..geometry import (
    AbstractOutputMetric,
    AbstractTangent,
    Decomposition,
    Direction,
    IdentityMetric,
    Linearisation,
    System,
    get_output_metric,
    linearise_with_hessian,
    linearise_with_other_metric,
    linearise_with_singular_metric,
)
from ..geometry.damping import AbstractDamping, SmallestEigenvalue
from ..geometry.directions import AbstractDirectionSolver, DirectionEquation, TruncatedEigh
from ..losses import ScaledIdentity
from ._base import AbstractLinearisedFlow, damping_field
from ._gain import InverseGain


class GaussNewtonFlow(AbstractLinearisedFlow):
    """w' = -(J^T H J + eps I)^(-1) J^T g = -J^T (H A + eps I)^(-1) g (push-through identity).

    The second, dual form is computed: it has NC unknowns for any number of weights. If A is invertible,
    f' = -(H + eps A^(-1))^(-1) g. A singular H (Huber's Hessian, a metric of your own) does not see a part of g. This part
    moves the weights, too, at the speed 1/eps. Without damping it is left out: w' = -J^T R (R^T A R)^+ h for g = R h + u
    (docs/theory.md, Singular metrics). Sources: [A] (arXiv 2302.02904); natural gradient: Amari 1998.

    **Arguments:**

    - `metric`: the metric H on outputs: "identity" (the experiments of [A]), "hessian" (generalised Gauss-Newton), "fisher"
      (natural gradient), or an output metric object. The unit of flow time depends on it: for the squared loss the residual
      decays at rate 1/N with the identity and at rate 1 with the Hessian.
    - `damping`: the rule for eps >= 0, in units of H A.
    - `solver`: the direction solver. Truncated `eigh` is safe for rank-deficient Gram matrices.

    **Raises:** `ConfigError` for an unknown metric name, or if `damping` is not a damping rule or `solver` not a direction
    solver.
    """

    rests_with_gradient: ClassVar[bool] = True
    is_stiff: ClassVar[bool] = False

    metric: AbstractOutputMetric = eqx.field(converter=get_output_metric, default=IdentityMetric())
    damping: AbstractDamping = damping_field(default=SmallestEigenvalue(factor=1.0, floor=1e-7))
    solver: AbstractDirectionSolver = instance_field(
        "solver",
        AbstractDirectionSolver,
        "a direction solver such as gnflow.geometry.directions.TruncatedEigh()",
        default=TruncatedEigh(),
    )

    def never_ascends(self, system: System) -> bool:
        """True for models without kinks, if the metric sees all of the gradient or the damping is positive at all times, and
        the direction solver preserves descent (docs/theory.md, exact fact 5)."""
        sees_gradient = self.metric.sees_gradient(system.loss)
        descends = self.solver.never_ascends(sees_gradient) and (sees_gradient or self.damping.is_positive)
        return descends and system.has_kinks is False

    def has_jumps(self, system: System) -> bool:
        """Whether the metric or the damping may jump."""
        return self.damping.has_jumps or self.metric.has_jumps(system.loss)

    def is_smooth(self, system: System) -> bool | None:
        """Whether the damping is smooth."""
        return self.damping.is_smooth

    @property
    def solves_iteratively(self) -> bool:
        """True unless the direction solver factorises."""
        return not self.solver.is_direct

    @property
    def allowed_residual(self) -> float:
        """The allowed residual of the direction solver."""
        return self.solver.allowed_residual

    def gain(self, system: System) -> InverseGain:
        """k = 1/(lam + eps) in the output metric."""
        return InverseGain(metric=self.metric, damping=self.damping)

    def is_differentiable(self, system: System) -> bool:
        """True for models without kinks, with a damping that is positive at all times and a solver that JAX can differentiate.

        Without damping the velocity jumps where a mode falls below the rank cut-off.
        """
        return system.has_kinks is False and self.damping.is_positive and self.solver.is_differentiable

    def direction(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> Direction:
        """a = (H A + eps)^(-1) g, with rank, damping and residual."""
        return self.solver.solve(self._equation(time, tangent, system))

    def linearisation(
        self, time: Float[Array, ""], tangent: AbstractTangent, system: System, decomposition: Decomposition
    ) -> Linearisation:
        """W = -J^T (H A + eps)^(-1) H_L J from the modes of R^T A R, which also give the direction.

        With a matrix-free direction solver W contains only the modes that are computed. For a metric other than the Hessian W
        then assumes H_L = c H, where c is the ratio of g^T H_L g to g^T H g.
        """
        equation = self._equation(time, tangent, system)
        factor = equation.factor
        direction, modes = self.solver.solve_and_decompose(equation, decomposition)
        assert direction.diagnostics is not None
        gains = self.gain(system)(modes.eigenvalues, direction.diagnostics.damping, modes.cutoff)
        hessian_factor = system.loss.hessian_factor(tangent.outputs, system.problem.y_train)
        if self.metric.is_hessian(system.loss):
            return linearise_with_hessian(tangent, direction, modes, gains, factor)
        if isinstance(factor, ScaledIdentity) and isinstance(hessian_factor, ScaledIdentity):
            scale = jnp.asarray(hessian_factor.scale / factor.scale)
            return linearise_with_hessian(tangent, direction, modes, gains, factor, scale)
        if modes.gram is None:
            gradient = system.loss.gradient(tangent.outputs, system.problem.y_train)
            curvature = jnp.sum(hessian_factor.transpose_product(gradient) ** 2)
            metric = jnp.sum(factor.transpose_product(gradient) ** 2)
            scale = jnp.where(metric > 0, curvature / jnp.where(metric > 0, metric, 1.0), 0.0)
            return linearise_with_hessian(tangent, direction, modes, gains, factor, scale)
        if self.metric.sees_gradient(system.loss):
            return linearise_with_other_metric(tangent, direction, modes, gains, factor, hessian_factor)
        return linearise_with_singular_metric(
            tangent, direction, modes, gains, factor, hessian_factor, direction.diagnostics.damping
        )

    def _equation(self, time: Float[Array, ""], tangent: AbstractTangent, system: System) -> DirectionEquation:
        """The equation (H A + eps) a = g with g = R h + u. u is None if the metric sees all of g."""
        targets = system.problem.y_train
        factor = self.metric.factor(system.loss, tangent.outputs, targets)
        gradient = system.loss.gradient(tangent.outputs, targets)
        unseen = None if self.metric.sees_gradient(system.loss) else factor.unseen(gradient)
        return DirectionEquation(tangent, factor, factor.whiten(gradient), self.damping, time, unseen)
