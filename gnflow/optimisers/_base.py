"""The abstract base of optimisers."""

import abc

import equinox as eqx
from jaxtyping import PyTree

from ..geometry import SolveDiagnostics, System


class AbstractOptimiser(eqx.Module):
    """Turns gradients into steps, with a memory of earlier gradients.

    The gradient that `gnflow.iterate` passes is minus the velocity of the flow, for every flow. For gradient flow of mobility
    m it is m grad L, so that an optimiser on `GradientFlow(mobility=1.0)` is the usual one.

    Floating-point fields are arguments of the compiled program, so another learning rate does not need another program.
    """

    @abc.abstractmethod
    def init(self, weights: PyTree) -> PyTree:
        """The memory before the first step, for weights like `weights` (a pytree with None for what is not trained)."""

    @abc.abstractmethod
    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The step, which is added to the weights, and the memory after it. The method is traced by JAX.

        **Arguments:**

        - `gradient`: a tree like `weights`.
        - `state`: what `init` or the last `update` returned.
        - `weights`: the present weights.
        - `system`: the samples of the step, with their loss and the model, for an optimiser that evaluates the loss.
          `gnflow.iterate` always passes it.
        """

    def diagnostics(self, state: PyTree) -> SolveDiagnostics | None:
        """How the last step's direction was solved for, of the memory after it; None for an optimiser without a solve.

        `gnflow.iterate` records it for every batch, in the place of what the flow says.
        """
        return None
