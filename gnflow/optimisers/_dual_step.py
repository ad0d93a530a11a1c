"""Dual Gauss-Newton directions as an optimiser of `gnflow.iterate`."""

from typing import Any, Literal

import equinox as eqx
from jaxtyping import PyTree

from .._core import ConfigError, instance_field, integer_field, number_field, require_number
from ..geometry import SolveDiagnostics, System
from ..geometry.dual._blocks import check_blocks
from ._adaptive_gamma import AdaptiveGamma
from ._base import AbstractOptimiser
from ._dual_gauss_newton import dual_gauss_newton
from ._sgd import SGD


def _as_gamma(value: Any) -> Any:
    if isinstance(value, AdaptiveGamma):
        return value
    return require_number(ConfigError, "DualGaussNewton: gamma", value, above=0.0)


class DualGaussNewton(AbstractOptimiser):
    """The direction of `dual_gauss_newton`, which takes the place of the gradient in another optimiser.

    In contrast to steps along `gnflow.flows.DualGaussNewtonFlow`, a function of the weights alone, gamma may adapt to the steps
    that were made, and each layer may have a dual problem of its own. The direction is that of the loss on the samples of the
    step, whatever the flow of `gnflow.iterate` is: give it `GradientFlow(mobility=1.0)`, because the velocity of another flow
    would be computed in vain, and weight decay would be left out. With batches the run records the solves, and 1/gamma as
    `batch_damping`.

    **Arguments:**

    - `gamma`: positive, in units of 1/(H A), or an `AdaptiveGamma`.
    - `model`, `max_iterations`, `tol`, `products`: as for `gnflow.flows.DualGaussNewtonFlow`.
    - `blocks`: None, "layers" or names, as for `dual_gauss_newton`.
    - `then`: the optimiser that is given -d as its gradient. `SGD(1.0)` takes the whole step d. With `AdaptiveGamma` that
      rejects a step, it is given zeros.

    **Raises:** `ConfigError` for other numbers or names, and if `update` gets no samples.
    """

    gamma: float | AdaptiveGamma = eqx.field(converter=_as_gamma, default=1.0)
    model: Literal["quadratic", "exact"] = "quadratic"
    max_iterations: int | None = integer_field("DualGaussNewton: max_iterations", default=None, static=True, least=0)
    tol: float = number_field("DualGaussNewton: tol", default=1e-8, least=0.0)
    products: Literal["auto", "matrix_free", "dense"] = "auto"
    blocks: str | tuple[str, ...] | None = eqx.field(
        converter=lambda blocks: check_blocks("DualGaussNewton: blocks", blocks), static=True, default=None
    )
    then: AbstractOptimiser = instance_field(
        "DualGaussNewton: then",
        AbstractOptimiser,
        "an optimiser such as gnflow.optimisers.Adam(1e-3)",
        default=SGD(1.0),
    )

    def __check_init__(self):
        self._directions()  # checks the rest

    def init(self, weights: PyTree) -> PyTree:
        """The states of the direction and of `then`."""
        return self._directions().init(weights), self.then.init(weights)

    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The step of `then` for -d, and both states."""
        of_direction, of_step = state
        pseudo, of_direction = self._directions().update(gradient, of_direction, weights, system=system)
        step, of_step = self.then.update(pseudo, of_step, weights, system)
        return step, (of_direction, of_step)

    def diagnostics(self, state: PyTree) -> SolveDiagnostics:
        """How the last direction was solved for."""
        last = state[0]
        return SolveDiagnostics(
            damping=1 / last.gamma,
            rank=last.iterations,
            relative_residual=last.relative_residual,
            success=last.success,
            iterations=last.iterations,
            duality_gap=last.duality_gap,
            relative_duality_gap=last.relative_duality_gap,
        )

    def _directions(self) -> Any:
        return dual_gauss_newton(
            self.gamma, self.model, self.max_iterations, self.tol, self.products, blocks=self.blocks
        )
