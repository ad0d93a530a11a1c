"""Exact Gauss-Newton flow of reversible networks."""

from typing import Any, Literal

from jaxtyping import Array, Float, PyTree

from .._core import ModelError, look_up, number_field
from ..geometry import SolveDiagnostics, System, block_gauss_newton
from ..models import ReversibleMLP
from ..problems import Problem
from ._base import AbstractFlow

_METRICS = ("identity", "hessian")


class ReversibleGaussNewtonFlow(AbstractFlow):
    """w' = -delta/L, block by block: the Gauss-Newton flow of a `ReversibleMLP` with L blocks.

    delta_b = J_b^+ (e u^T) for the weights of each block b alone, with J_b the Jacobian of the last features, u the frozen
    output projection and e (N, C) the output term. Where every half-block's features have full row rank J delta = L e u^T, so
    the outputs obey f' = -e exactly, whatever the network. It needs N <= h + 1 and N <= d/2 + 1 (if a block is linear), fewer
    if the data are rank deficient; otherwise the direction is truncated, and result, data and table say so with the residual.

    The memory beside the weights does not grow with depth, and no matrix is larger than min(N, h + 1): `block_gauss_newton`.
    For L > 1 it is not the minimum-norm direction of `GaussNewtonFlow`: block-diagonal, not the same motion of the weights.

    The unit of flow time: residuals decay at rate 1 (squared loss), N times faster than with `GaussNewtonFlow`'s identity
    metric. [B]'s update with learning rate r is a step of `iterate` with step_size = L r (cross-entropy) or 2 L r (its mean
    squared error, whose factor 2 is kept there). Source: Buffelli et al., arXiv 2411.07979, Section 4.

    **Arguments:**

    - `metric`: "identity": e = grad l(f_n) of each sample ((p - y) for softmax); "hessian": e = H_n^+ grad l(f_n), the
      generalised Gauss-Newton method ((f - y) for the squared loss in either).
    - `rtol`: singular values of a half-block's features below this part of the largest are left out; 1e-2 is [B]'s. Those
      below about 1e-6 of it always are, since the solve cannot tell them from zero, and 0 asks for no more than that
      (`gnflow.geometry.least_squares_with_bias` has the number).

    **Raises:** `ConfigError` for another metric or a number that is not in [0, 1); `ModelError`, when a run begins, for a
    model that is no `ReversibleMLP` or of which only a part is trained.
    """

    metric: Literal["identity", "hessian"] = "identity"
    rtol: float = number_field("rtol", default=0.0, least=0.0, below=1.0, remedy="At 1 no singular value is left.")

    def __check_init__(self):
        look_up(self.metric, dict.fromkeys(_METRICS), "metric")

    @property
    def reported_rate(self) -> float | None:
        """1, with either metric: the squared loss has N grad L = H^+ grad L = f - y."""
        return 1.0

    def system(self, problem: Problem, model: Any) -> System:
        """The problem joined with the reversible network. **Raises:** `ModelError` for another model."""
        _require_reversible(model)
        return super().system(problem, model)

    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """-delta/L with rank and residual of every half-block."""
        _require_reversible(system.structure)
        if weights.weight is None or weights.bias is None:
            raise ModelError(
                f"ReversibleGaussNewtonFlow moves all weights, but only {system.trainable} are to be trained; take "
                "GaussNewtonFlow for a part of them."
            )
        problem = system.problem
        model: ReversibleMLP = system.model(weights)
        features = model.hidden_features(problem.x_train)
        outputs = features @ model.output_projection
        gradient = system.loss.gradient(outputs, problem.y_train)
        if self.metric == "hessian":
            change = system.loss.hessian_pinv_product(outputs, problem.y_train, gradient)
        else:
            change = outputs.shape[0] * gradient  # of each sample: the mean's 1/N is taken back
        # The sign goes into what is asked for: of the update there is only one copy.
        return block_gauss_newton(weights, system.structure, problem.x_train, features, -change, self.rtol)


def _require_reversible(model: Any) -> None:
    if not isinstance(model, ReversibleMLP):
        raise ModelError(
            f"ReversibleGaussNewtonFlow moves a ReversibleMLP, but the model is a {type(model).__name__}; take "
            "GaussNewtonFlow for it."
        )
