"""Choose by the leave-one-out error of the output layer. It fails, and is here to show that."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...geometry import Readout, System
from ...metrics import Variable
from ._readout_metric import ReadoutMetric
from ._scored import AbstractScoredChoice


class _LeaveOneOut(ReadoutMetric):
    cutoff: float

    def variables(self, system: System) -> tuple[Variable, ...]:
        reference = "Golub, Heath, Wahba 1979"
        return (Variable("leave_one_out", "leave-one-out loss of ridge regression on the features", "1", reference),)

    def of_readout(self, readout: Readout, system: System) -> dict[str, Float[Array, "..."]]:
        inverse, targets = readout.inverse, readout.targets.reshape(-1)
        shifted = 1 / (jnp.maximum(inverse.eigenvalues, 0.0) + self.cutoff * inverse.eigenvalues[-1])
        residual = inverse.modes @ (shifted * (inverse.modes.T @ targets))
        left_out = residual / ((inverse.modes**2) @ shifted)
        return {"leave_one_out": jnp.sum(left_out**2) / (2 * readout.targets.shape[0])}


class LeaveOneOut(AbstractScoredChoice):
    """Take the time at which the leave-one-out error of ridge regression on the features is least.

    **This fails**: the features have seen the label that is left out, so that the error falls to the end of the run
    (docs/features_first.md). The ridge is the cut-off of the call times the largest eigenvalue of the features' Gram matrix.
    With the ridge in G the errors are (G^-1 y)_n / (G^-1)_nn (Golub, Heath, Wahba 1979), one output of a sample at a time.
    """

    def metric(self, readout: str, cutoff: float) -> ReadoutMetric:
        """The leave-one-out error."""
        return _LeaveOneOut(readout, max(cutoff, 1e-14))

    def prefer(self, times: np.ndarray, scores: np.ndarray) -> int:
        """The least error."""
        return int(np.argmin(scores))
