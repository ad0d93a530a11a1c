"""What rules measure of the features along a run."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...geometry import Readout, Snapshot, System
from ...metrics import AbstractMetric, Variable


class ReadoutMetric(AbstractMetric):
    """Numbers that follow from the output layer's least-squares problem at a state.

    **Arguments:** `readout`: the name of the output layer.
    """

    readout: str = eqx.field(static=True)

    @abc.abstractmethod
    def of_readout(self, readout: Readout, system: System) -> dict[str, Float[Array, "..."]]:
        """The values of the variables."""

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """The values at this state."""
        group = snapshot.system.named(snapshot.weights, self.readout)
        return self.of_readout(Readout.of(snapshot.system, snapshot.weights, group), snapshot.system)


class HeldOutLoss(ReadoutMetric):
    """The validation loss with the output layer solved, for each of several cut-offs."""

    cutoffs: tuple[float, ...]

    def variables(self, system: System) -> tuple[Variable, ...]:
        """`held_out_loss` over the cut-offs."""
        what = "held-out loss after solving the output layer"
        return (Variable("held_out_loss", what, "1", "docs/features_first.md", ("cutoff",)),)

    def of_readout(self, readout: Readout, system: System) -> dict[str, Float[Array, "..."]]:
        """The losses."""
        targets = system.problem.y_validation
        assert targets is not None
        losses = [
            system.loss.value(system.validation_outputs(readout.solve(cutoff)), targets) for cutoff in self.cutoffs
        ]
        return {"held_out_loss": jnp.stack(losses)}
