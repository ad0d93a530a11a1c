"""What an optimiser is."""

import abc

import equinox as eqx
from jaxtyping import PyTree

from ..geometry import System


class AbstractOptimiser(eqx.Module):
    """Makes steps of gradients, with a memory of those before.

    What `gnflow.iterate` hands to it as the gradient is minus the velocity of the flow, whatever the flow: m grad L for
    gradient flow of mobility m, so that an optimiser on `GradientFlow(mobility=1.0)` is the usual one.

    Floating-point fields are numbers of the compiled program's input: another learning rate is not another program.
    """

    @abc.abstractmethod
    def init(self, weights: PyTree) -> PyTree:
        """The memory before the first step, for weights like `weights` (a pytree with None for all that does not move)."""

    @abc.abstractmethod
    def update(
        self, gradient: PyTree, state: PyTree, weights: PyTree, system: System | None = None
    ) -> tuple[PyTree, PyTree]:
        """The step, which is added to the weights, and the memory after it. Traced by JAX.

        **Arguments:** `gradient`: a tree like `weights`; `state`: what `init` or the last `update` returned; `weights`: the
        present ones; `system`: the samples of the step with their loss and the model, for an optimiser that looks at the
        loss itself. `gnflow.iterate` always gives it.
        """
