"""Test inputs at which a run is looked at beside the training inputs: its error there is promised, too."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .._core import tree_rms
from ..geometry import System

PROBED = "outputs at the probe's inputs"  # among the values of a save, of which it is no variable

_MOST_INPUTS = 64  # enough for an rms, and cheap beside a step


class Probe(eqx.Module):
    """At most 64 of the test inputs, evenly spaced.

    **Attributes:** `inputs` (n, d); `first_outputs` (n, C): at the start of the run.
    """

    inputs: Float[Array, "samples ..."]
    first_outputs: Float[Array, "samples outputs"]

    @classmethod
    def of(cls, system: System, weights: PyTree) -> "Probe | None":
        """At the start of a run; None for a problem without test data."""
        x_test = system.problem.x_test
        if x_test is None:
            return None
        inputs = x_test[:: -(-len(x_test) // _MOST_INPUTS)]
        return cls(inputs, _outputs(system, weights, inputs))

    def outputs(self, system: System, weights: PyTree) -> Float[Array, "samples outputs"]:
        """f at the inputs, (n, C)."""
        return _outputs(system, weights, self.inputs)

    def error(self, system: System, weights: PyTree, displacement: PyTree) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """How far the outputs have moved, and what a small `displacement` of `weights` does to them, both rms."""
        outputs, pushed = jax.jvp(lambda w: system.outputs(w, self.inputs), (weights,), (displacement,))
        return tree_rms(outputs - self.first_outputs), tree_rms(pushed)


@eqx.filter_jit
def _outputs(system: System, weights: PyTree, inputs: Array) -> Float[Array, "samples outputs"]:
    return system.outputs(weights, inputs)
