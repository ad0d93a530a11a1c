"""The losses of a record, and how they compare with those of reruns."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ..simulate import Trajectory
from ._accuracy import ROUNDING_OF_PROGRAMS, TINY
from ._evidence import Evidence
from ._reruns import matching

# Losses are compared as logarithms down to this share of the outputs' scale, where rounding is below 1e-4.
_FLOOR = 2e-11
# A rerun reproduces a record if they differ by less than this share of the error of an honest run, between two limits.
_REPRODUCED, _LEAST, _MOST = 0.1, 1e-5, 2e-3
LOSSES = {"train_loss": "training loss", "test_loss": "test loss", "validation_loss": "validation loss"}


@dataclasses.dataclass(frozen=True)
class RecordedLosses:
    """One recorded loss.

    **Attributes:**

    - `name`: its variable.
    - `x`, `y`: the data.
    - `minimum`: its infimum over outputs.
    - `floor`: the excess below which nothing is compared.
    - `scale`: rms of outputs, targets and the terms that outputs are made of.
    """

    name: str
    x: Any
    y: Any
    minimum: float
    floor: float
    scale: float

    def logs(self, run: Trajectory) -> np.ndarray:
        """log(L - L* + floor) as a run holds it, at its own times."""
        return self.log(run.data[self.name].to_numpy())

    def log(self, values: np.ndarray) -> np.ndarray:
        """log(L - L* + floor)."""
        return np.log(np.maximum(values - self.minimum, 0.0) + self.floor)

    def rounding(self, logs: np.ndarray) -> np.ndarray:
        """The error of these logarithms from the last digits of the outputs."""
        return ROUNDING_OF_PROGRAMS * (1 + self.scale * np.exp(-logs / 2))


def recorded_losses(evidence: Evidence) -> list[RecordedLosses]:
    """Those that the record has, the training loss first."""

    def make() -> list[RecordedLosses]:
        system, problem = evidence.system, evidence.system.problem
        data: list[tuple[str, Any, Any]] = [
            (f"{which}_loss", getattr(problem, f"x_{which}"), getattr(problem, f"y_{which}"))
            for which in ("train", "test", "validation")
            if f"{which}_loss" in evidence.trajectory.data
        ]
        data = [(name, x, y) for name, x, y in data if x is not None]
        found = []
        for name, x, y in data:
            parts = (system.outputs(evidence.start, x), y, _cancelled(evidence, x))
            scale = sum(float(np.sqrt(np.mean(np.asarray(part) ** 2))) for part in parts) + TINY**0.25
            minimum = float(system.loss.minimum(y))
            found.append(RecordedLosses(name, x, y, minimum, (_FLOOR * scale) ** 2 / 2, scale))
        return found

    return evidence.once("recorded losses", make)


def _cancelled(evidence: Evidence, x: Any) -> Any:
    """J (xi w) with random signs xi, (N, C): the size of the terms of the outputs before they cancel."""
    signs = np.random.default_rng(0)
    changes = jax.tree.map(lambda w: w * signs.choice([-1.0, 1.0], w.shape), evidence.start)
    return evidence.system.tangent(evidence.start, x).jvp(changes)


def reproduction(
    evidence: Evidence, losses: RecordedLosses, again: Trajectory
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The difference of the record and a rerun, and the allowed difference, at their common saves (c,); and the indices of
    these saves in the record."""
    at = matching(evidence.recorded_times, again.data.time.to_numpy())
    both, index = np.flatnonzero(at >= 0), matching(evidence.recorded_times, evidence.times)
    allowed = reproducible(honest_error(evidence, losses)) + losses.rounding(losses.logs(evidence.flow_run))
    off = np.abs(losses.logs(evidence.trajectory)[both] - losses.logs(again)[at[both]])
    return off, allowed[index[both]], both


def is_reproduced(evidence: Evidence) -> bool:
    """Whether the rerun of the same call saved at the same times and ended like the record."""

    def compare() -> bool:
        again, record = evidence.replicate, evidence.trajectory
        if (
            again is None
            or evidence.companion_rerun is not evidence.replicate_rerun
            or again.result.code != record.result.code
        ):
            return False
        num_saves = len(evidence.recorded_times)
        found = [reproduction(evidence, losses, again) for losses in recorded_losses(evidence)]
        return len(again.data.time) == num_saves and all(
            len(both) == num_saves and bool(np.all(off <= allowed)) for off, allowed, both in found
        )

    return evidence.once("the replicate reproduces the record", compare)


def reproducible(honest: Any) -> Any:
    """The largest difference beside rounding at which a rerun reproduces a record, if an honest run has the error `honest`."""
    return np.clip(_REPRODUCED * honest, _LEAST, _MOST)


def honest_error(evidence: Evidence, losses: RecordedLosses) -> np.ndarray:
    """The error of an honest run at the times of the reference: the largest difference of both reruns so far."""
    index, own = evidence.accuracy.common
    difference = losses.logs(evidence.replicate_run)[own] - losses.logs(evidence.flow_run)[index]
    return evidence.accuracy.growing(np.abs(difference))
