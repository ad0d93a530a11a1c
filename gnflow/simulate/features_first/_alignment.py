"""Choose by the alignment of the features with the targets."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import ConfigError, require_bool
from ...geometry import Readout, System
from ...metrics import Variable
from ._readout_metric import ReadoutMetric
from ._scored import AbstractScoredChoice


class _Alignment(ReadoutMetric):
    def variables(self, system: System) -> tuple[Variable, ...]:
        reference = "Cristianini et al. 2001"
        return (Variable("feature_alignment", "alignment of the features' Gram matrix", "1", reference),)

    def of_readout(self, readout: Readout, system: System) -> dict[str, Float[Array, "..."]]:
        targets, inverse = readout.targets.reshape(-1), readout.inverse
        fit = jnp.sum(inverse.eigenvalues * (inverse.modes.T @ targets) ** 2)
        return {"feature_alignment": fit / (jnp.linalg.norm(inverse.eigenvalues) * jnp.sum(targets**2))}


def _as_bool(value: Any) -> Any:
    return require_bool(ConfigError, velocity=value)[0]


class AlignmentPeak(AbstractScoredChoice):
    """Take the time at which the kernel of the features is aligned best with the targets, or aligns fastest.

    The alignment is y^T K y / (||K|| ||y||^2) with the Gram matrix K of the features (Cristianini et al. 2001).

    **Arguments:** `velocity`: whether to take the peak of the alignment's rate of change per logarithm of flow time instead.

    **Raises:** `ConfigError` unless `velocity` is True or False.
    """

    velocity: bool = eqx.field(converter=_as_bool, default=False, static=True)

    def metric(self, readout: str, cutoff: float) -> ReadoutMetric:
        """The alignment."""
        return _Alignment(readout)

    def prefer(self, times: np.ndarray, scores: np.ndarray) -> int:
        """The peak. A run of fewer than three saved times has no rate of change: its end."""
        if not self.velocity:
            return int(np.argmax(scores))
        if len(times) < 4:
            return len(times) - 1
        return 1 + int(np.argmax(np.gradient(scores[1:], np.log(times[1:]))))
