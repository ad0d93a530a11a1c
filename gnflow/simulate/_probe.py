"""Test inputs at which a run is watched beside the training inputs, because it promises its error there, too."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import tree_rms
from ..geometry import System

_MOST_INPUTS = 64  # enough for an rms, and cheap beside a step


class Probe(eqx.Module):
    """At most 64 of the test inputs: half of them evenly spaced, the other half those farthest from the training inputs.

    The distance is measured from the mean of the training inputs, each column in units of its standard deviation. Outputs at
    far inputs move most.

    **Attributes:**

    - `inputs`: the chosen test inputs (n, d).
    - `first_outputs`: the outputs (n, C) at the start of the run.
    """

    inputs: Float[Array, "samples ..."]
    first_outputs: Float[Array, "samples outputs"]

    @classmethod
    def of(cls, system: System, weights: PyTree) -> "Probe | None":
        """The probe of a run that starts at `weights`; None for a problem without test data."""
        x_test = system.problem.x_test
        if x_test is None:
            return None
        inputs = x_test[_chosen(np.asarray(system.problem.x_train), np.asarray(x_test))]
        return cls(inputs, _outputs(system, weights, inputs))

    def outputs(self, system: System, weights: PyTree) -> Float[Array, "samples outputs"]:
        """The outputs (n, C) at the inputs."""
        return _outputs(system, weights, self.inputs)

    def error(self, system: System, weights: PyTree, displacement: PyTree) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """How far the outputs have moved, and how far a small `displacement` of `weights` moves them, both rms."""
        outputs, pushed = jax.jvp(lambda w: system.outputs(w, self.inputs), (weights,), (displacement,))
        return tree_rms(outputs - self.first_outputs), tree_rms(pushed)


def _chosen(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The indices of the chosen test inputs, ascending."""
    count = len(test)
    if count <= _MOST_INPUTS:
        return np.arange(count)
    train, test = (np.reshape(x, (len(x), -1)) for x in (train, test))
    deviation = train.std(axis=0)
    apart = np.linalg.norm((test - train.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0), axis=1)
    half = _MOST_INPUTS // 2
    farthest = np.argsort(-apart, kind="stable")[:half]
    rest = np.setdiff1d(np.arange(count), farthest)
    even = rest[np.linspace(0, len(rest) - 1, half).round().astype(int)]
    return np.sort(np.concatenate([farthest, even]))


@eqx.filter_jit
def _outputs(system: System, weights: PyTree, inputs: Array) -> Float[Array, "samples outputs"]:
    return system.outputs(weights, inputs)
