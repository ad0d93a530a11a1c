"""Choose by the effective rank of the features."""

import numpy as np
from jaxtyping import Array, Float

from ...geometry import Readout, System, effective_rank
from ...metrics import Variable
from ._readout_metric import ReadoutMetric
from ._scored import AbstractScoredChoice


class _Rank(ReadoutMetric):
    def variables(self, system: System) -> tuple[Variable, ...]:
        reference = "Roy and Vetterli 2007"
        return (Variable("feature_rank", "effective rank of the features' Gram matrix", "1", reference),)

    def of_readout(self, readout: Readout, system: System) -> dict[str, Float[Array, "..."]]:
        return {"feature_rank": effective_rank(readout.inverse.eigenvalues)}


class FeatureRank(AbstractScoredChoice):
    """Take the last time at which the effective rank of the features has a minimum within the first stage.

    From a small start the features are nearly linear in the inputs. They align with what the targets show, and then spread to
    fit the samples one by one: the rank falls and rises. Without a minimum inside of the stage it is the least value's time.
    Effective rank: Roy and Vetterli 2007, of the Gram matrix of the features.
    """

    def metric(self, readout: str, cutoff: float) -> ReadoutMetric:
        """The effective rank."""
        return _Rank(readout)

    def prefer(self, times: np.ndarray, scores: np.ndarray) -> int:
        """The last minimum inside, or else the least value."""
        inner = scores[1:-1]
        minima = np.flatnonzero((inner <= scores[:-2]) & (inner < scores[2:])) + 1
        return int(minima[-1]) if minima.size else int(np.argmin(scores))
