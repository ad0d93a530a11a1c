"""Exact Gauss-Newton flow of reversible networks."""

from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import ModelError, look_up, number_field
from ..geometry import SolveDiagnostics, System, block_gauss_newton
from ..geometry.damping import AbstractDamping, Constant
from ..models import ReversibleMLP
from ..problems import AbstractProblem
from ._base import AbstractFlow, damping_field

_METRICS = ("identity", "hessian")


class ReversibleGaussNewtonFlow(AbstractFlow):
    """w' = -delta/L, block by block: the Gauss-Newton flow of a `ReversibleMLP` with L blocks.

    For the weights of each block b alone delta_b = J_b^+ (e u^T), where J_b is the Jacobian of the last features, u the frozen
    output projection and e (N, C) the output term. If the features of every half-block have full row rank, J delta = L e u^T,
    so the outputs obey f' = -e exactly for any such network. This needs N <= h + 1 and N <= d/2 + 1 (if a block is linear), and
    fewer samples if the data are rank deficient. Otherwise the direction is truncated, and result, data and table report the
    residual.

    The memory beside the weights does not grow with depth, and no matrix is larger than min(N, h + 1): `block_gauss_newton`.
    For L > 1 the direction is not the minimum-norm one of `GaussNewtonFlow`, and the weights move differently.

    In this unit of flow time residuals decay at rate 1 (squared loss), N times faster than for `GaussNewtonFlow` with the
    identity metric. The update of [B] with learning rate r is a step of `iterate` with step_size = L r (cross-entropy) or 2 L r
    (its mean squared error, which has a factor 2). Source: [B] Buffelli et al., arXiv 2411.07979, Section 4.

    **Arguments:**

    - `metric`: "identity" for e = grad l(f_n) of each sample (p - y for softmax), or "hessian" for e = H_n^+ grad l(f_n), the
      generalised Gauss-Newton method. Both give f - y for the squared loss.
    - `rtol`: singular values of a half-block's features below this share of the largest are left out; [B] uses 1e-2. Singular
      values below about 1e-6 of the largest are always left out, also for 0, because the solve cannot tell them from zero
      (`gnflow.geometry.least_squares_with_bias` has the number).
    - `atol`: singular values up to this are left out too, in the unit of the features. The larger bound counts, as in
      `torch.linalg.pinv`.
    - `damping`: the rule for the ridge eps >= 0 that each half-block adds to its least-squares problem, from the spectrum of
      its own A A^T with A = [features, 1], in units of that. `PredictedDecrease(share)` keeps a share of the decrease that the
      half-block's quadratic model predicts, with the least change of its weights; `LargestEigenvalue(factor)` is a ridge of
      factor sigma_max^2. Then J w' is no longer -e u^T; `relative_residual` is what is missing (docs/reversible.md, Damped
      blocks). 0 by default.

    **Raises:** `ConfigError` for another metric, a number outside [0, 1) or what is not a damping rule; `ModelError`, when a
    run begins, for a model that is not a `ReversibleMLP` or of which only a part is trained.
    """

    metric: Literal["identity", "hessian"] = "identity"
    rtol: float = number_field("rtol", default=0.0, least=0.0, below=1.0, remedy="At 1 no singular value is left.")
    atol: float = number_field("atol", default=0.0, least=0.0)
    damping: AbstractDamping = damping_field(default=Constant(0.0))

    def __check_init__(self):
        look_up(self.metric, dict.fromkeys(_METRICS), "metric")

    @property
    def reported_rate(self) -> float | None:
        """1 with either metric, because the squared loss has N grad L = H^+ grad L = f - y."""
        return 1.0

    def has_jumps(self, system: System) -> bool:
        """Whether the damping may jump."""
        return self.damping.has_jumps

    def system(self, problem: AbstractProblem, model: Any) -> System:
        """The problem joined with the reversible network. **Raises:** `ModelError` for another model."""
        _require_reversible(model)
        if not problem.has_samples:
            raise ModelError(
                f"ReversibleGaussNewtonFlow inverts the network sample by sample, and a {type(problem).__name__} has no "
                "samples; take GaussNewtonFlow for it."
            )
        return super().system(problem, model)

    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """-delta/L, with rank, residual and damping of every half-block."""
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
            change = outputs.shape[0] * gradient  # the gradients of single samples, without the 1/N of the mean
        # The sign goes into `change`. Changing the sign of the update would need a second copy of the weights' size.
        now = jnp.asarray(time, dtype=jnp.float64)
        return block_gauss_newton(
            weights,
            system.structure,
            problem.x_train,
            features,
            -change,
            self.rtol,
            self.atol,
            lambda spectrum: self.damping.shift(now, spectrum),
        )


def _require_reversible(model: Any) -> None:
    if not isinstance(model, ReversibleMLP):
        raise ModelError(
            f"ReversibleGaussNewtonFlow moves a ReversibleMLP, but the model is a {type(model).__name__}; take "
            "GaussNewtonFlow for it."
        )
