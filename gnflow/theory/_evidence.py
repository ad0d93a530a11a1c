"""What a run tells a theorem: its record, and two runs of verify's own that tell what the flow does and how surely."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import numpy as np

from .._core import ConfigError, GnflowError
from ..flows import AbstractFlow, AbstractGain
from ..geometry import System
from ..metrics import AbstractMetric, DirectionDiagnostics, PathLength
from ..simulate import Trajectory
from ._check import Check
from ._rate_band import RateBand, has_band
from ._reruns import Rerun, companion, ends_with, matching, reference, reference_times, replicate
from ._settings import saved_times

# The error of the reference over its distance to the replicate, whose tolerance is at least 16 times as large.
SHARE = 0.25
_SHARED_STEPS = 4
# How far a step may reach: in times of where it began.
_AHEAD = 10.0

_Made = TypeVar("_Made")


def rms_residual(log_excess: np.ndarray) -> np.ndarray:
    """r = sqrt(2 (L - L*)) from log(L - L*): of the squared loss the rms over samples of ||f - y||."""
    return np.sqrt(2) * np.exp(log_excess / 2)


class OtherModelError(GnflowError):
    """The last model of a record is no state of a run that began with the first. **Attributes:** `hypothesis`: what fails."""

    hypothesis: ClassVar[str] = "the last model is the first with other weights"


class Evidence:
    """A run as theorems see it. Everything is computed when first asked for, and kept.

    Two runs of verify's own stand beside the record. The *replicate* is the same call once more; the *reference* is the same
    flow at a tolerance that the record has no say in, saved at every recorded time and more, with what theorems need to
    be measured. Theorems are checked on the reference; the record is compared with both (`record_claims`). No
    error is taken from what the record says of itself. Where the same call ends elsewhere than the record, a third run, the
    *companion*, stands for the replicate: at the recorded tolerances to the record's end.

    **Arguments:** `trajectory`: from `simulate` or `iterate`.

    **Raises:** `ConfigError` for anything else.
    """

    def __init__(self, trajectory: Any):
        if not isinstance(trajectory, Trajectory):
            raise ConfigError(
                f"verify takes one Trajectory (from simulate, iterate or load), not a {type(trajectory).__name__}."
            )
        self.trajectory: Trajectory = trajectory
        self._kept: dict[Hashable, Any] = {}

    def once(self, name: Hashable, make: Callable[[], _Made]) -> _Made:
        """What `make` returns, made the first time that `name` is asked for: several theorems may need the same run."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @property
    def is_continuous(self) -> bool:
        """Whether the run is a flow in continuous time (`simulate`), not a sequence of steps."""
        return self.trajectory.settings.get("kind") == "simulate" or "time" in self.trajectory.data.dims

    @property
    def flow(self) -> AbstractFlow:
        """The flow that acts on the weights that move."""
        return self.trajectory.flow.dynamics

    @property
    def gain(self) -> AbstractGain | None:
        """The flow's law on the eigenvalues of the Gram matrix, where it has one."""
        return self.flow.gain(self.system)

    @property
    def decays(self) -> bool:
        """Whether weights decay beside what -J^T a makes of them."""
        return self.flow.decay(self.start, self.system) is not None

    @property
    def never_ascends(self) -> bool:
        """Whether the loss, with no penalty added to it, cannot rise along the flow."""
        return self.flow.never_ascends(self.system) and self.flow.penalty(self.start, self.system) is None

    @functools.cached_property
    def system(self) -> System:
        """The problem joined with the model's structure."""
        return self.trajectory.flow.system(self.trajectory.problem, self.trajectory.initial_model)

    @functools.cached_property
    def start(self) -> Any:
        """The first trained weights."""
        return self.system.weights(self.trajectory.initial_model)

    @functools.cached_property
    def end(self) -> Any:
        """The last trained weights, as recorded.

        **Raises:** `OtherModelError` if the last model is not the first with other values in its arrays.
        """
        first, last = self.trajectory.initial_model, self.trajectory.model
        arrays = (jax.tree.map(np.shape, eqx.filter(model, eqx.is_array)) for model in (first, last))
        others = (eqx.filter(model, eqx.is_array, inverse=True) for model in (first, last))
        if not (bool(eqx.tree_equal(*arrays)) and bool(eqx.tree_equal(*others))):
            raise OtherModelError("the last model differs from the first in more than weights; the record is damaged.")
        return self.system.weights(last)

    @functools.cached_property
    def recorded_times(self) -> np.ndarray:
        """Saved flow times (n,), the first 0."""
        return saved_times(self.trajectory)

    @functools.cached_property
    def recorded_log_excess(self) -> np.ndarray:
        """log(L - L*) at the saved times, (n,), as recorded; -inf where the record is at the infimum."""
        return self._log_excess(self.trajectory)

    @functools.cached_property
    def minimum(self) -> float:
        """L*, the infimum of the loss over all outputs."""
        return float(self.system.loss.minimum(self.system.problem.y_train))

    @functools.cached_property
    def replicated(self) -> Rerun:
        """The same call once more."""
        return replicate(self.trajectory)

    @functools.cached_property
    def referred(self) -> Rerun:
        """The reference run; it measures the band of rates, or the direction's residual, where the flow has one."""
        times = self.recorded_times
        if len(times) < 2 or not (np.all(np.isfinite(times)) and times[0] == 0 and np.all(np.diff(times) > 0)):
            return Rerun(None, "the saved times do not ascend from 0")
        again = self.replicated.trajectory
        replicated = self.recorded_times if again is None else again.data.time.to_numpy()
        return self._refer(reference_times(self.recorded_times, replicated), self._metrics())

    def _metrics(self) -> tuple[AbstractMetric, ...]:
        metrics: list[AbstractMetric] = [RateBand(self.flow)] if has_band(self.flow, self.system) else []
        if self.flow.reported_rate is not None:
            metrics.append(DirectionDiagnostics())
        if "path_length" in self.trajectory.data:
            metrics.append(PathLength())
        return tuple(metrics)

    @functools.cached_property
    def reference(self) -> Trajectory | None:
        """The reference run, or None where it could not be made."""
        return self.referred.trajectory

    @functools.cached_property
    def accompanied(self) -> Rerun:
        """The same call once more where it ends as the record does, else the companion."""
        again = self.replicated.trajectory
        if again is None or self.reference is None or ends_with(again, self.recorded_times):
            return self.replicated
        times, taken = self.reference.data.time.to_numpy(), again.stats["num_steps"]
        return companion(self.trajectory, times, self._metrics(), taken)

    @functools.cached_property
    def replicate(self) -> Trajectory | None:
        """A run to the record's end at its tolerances, or None where it could not be made."""
        return self.accompanied.trajectory

    @property
    def flow_run(self) -> Trajectory:
        """The reference run, once `repeated` is met."""
        assert self.reference is not None
        return self.reference

    def repeat(
        self, times: np.ndarray, metrics: tuple[AbstractMetric, ...], rtol: float | None = None
    ) -> Trajectory | None:
        """A run like the reference with other times and metrics, or another tolerance; None where that fails."""
        return self._refer(times, metrics, rtol).trajectory

    def _refer(self, times: np.ndarray, metrics: tuple[AbstractMetric, ...], rtol: float | None = None) -> Rerun:
        again = self.replicated.trajectory
        return reference(self.trajectory, times, metrics, 0 if again is None else again.stats["num_steps"], rtol)

    def repeated(self, *others: Trajectory | None) -> Check:
        """The hypothesis that both runs are there, and `others` that `repeat` gave; without them all is undecided."""
        reason = self.referred.reason or self.accompanied.reason
        if not reason and any(other is None for other in others):
            reason = "a rerun that measures more than these does not reach the end"
        return Check("the run can be repeated", np.nan if reason else 1.0, "==", 1.0, remark=reason)

    @functools.cached_property
    def times(self) -> np.ndarray:
        """Flow times at which the reference is known, (k,): the recorded ones and others between them."""
        return self.flow_run.data.time.to_numpy()

    @functools.cached_property
    def log_excess(self) -> np.ndarray:
        """log(L - L*) of the reference at `times`; -inf where it is at the infimum."""
        return self._log_excess(self.flow_run)

    @functools.cached_property
    def flow_end(self) -> Any:
        """The last trained weights of the reference."""
        return self.system.weights(self.flow_run.model)

    @functools.cached_property
    def replicated_end(self) -> Any:
        """The last trained weights of the replicate, once `repeated` is met."""
        assert self.replicate is not None
        return self.system.weights(self.replicate.model)

    @functools.cached_property
    def common(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices into `times` and into the replicate's times of those that are the same, (c,) each."""
        if self.replicate is None:
            return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
        at = matching(self.replicate.data.time.to_numpy(), self.times)
        return at[at >= 0], np.flatnonzero(at >= 0)

    @functools.cached_property
    def log_replicated(self) -> np.ndarray:
        """log(L - L*) of the replicate at the common times, (c,)."""
        if self.replicate is None:
            return np.zeros(0)
        return self._log_excess(self.replicate)[self.common[1]]

    def growing(self, values: np.ndarray) -> np.ndarray:
        """The largest of `values`, (c,) at the common times, up to ten times each of `times`, (k,), and at least to the next
        common one; infinite without any.

        Ahead, because values between two steps are interpolated, with an error that rises and falls within the step.
        """
        at, _ = self.common
        if not len(at):
            return np.full(len(self.times), np.inf)
        following = np.searchsorted(self.times[at], _AHEAD * self.times, side="right") - 1
        following = np.maximum(following, np.searchsorted(at, np.arange(len(self.times))))
        return np.maximum.accumulate(values)[np.minimum(following, len(at) - 1)]

    @functools.cached_property
    def between(self) -> np.ndarray:
        """The largest difference of log(L - L*) between both runs, `growing` with `times`, (k,): the error that a run has which
        is made as the record says; infinite without a replicate."""
        with np.errstate(invalid="ignore"):
            difference = np.abs(self.log_excess[self.common[0]] - self.log_replicated)
        return self.growing(np.where(np.isnan(difference), 0.0, difference))  # both at the infimum

    @functools.cached_property
    def tolerance(self) -> np.ndarray:
        """The error of the reference's log(L - L*) at `times`, (k,), as measured: a quarter of the largest difference to the
        replicate so far, at least what its solver promises of four steps (an error that both runs may share), at most what
        it promises of all."""
        shared = 2 * self.flow_run.settings["rtol"] * _SHARED_STEPS * (self.times > 0)
        return np.minimum(np.maximum(SHARE * self.between, shared) + self.rounding, self.error_bound)

    @functools.cached_property
    def error_bound(self) -> np.ndarray:
        """The error of the reference's log(L - L*) at `times`, (k,), at worst: 2 (rtol + atol/r) for each of its steps, r the
        rms residual (docs/theory.md, The error norm in function space), and rounding.

        That counts on errors that decay as fast as the residual. Where they do not (a slow mode outlives the others, a flow
        does not contract) it is the largest difference to the replicate, whose error is the larger one."""
        settings = self.flow_run.settings
        steps = max(self.flow_run.stats["num_accepted_steps"], 1)
        with np.errstate(divide="ignore"):
            promised = 2 * (settings["rtol"] + settings["atol"] / rms_residual(self.log_excess)) * steps
        return np.maximum(promised, self.between[-1]) + self.rounding

    @functools.cached_property
    def rounding(self) -> np.ndarray:
        """Error of log(L - L*) at `times` from the last digit of the outputs, (k,)."""
        scale = float(jax.numpy.sqrt(jax.numpy.mean(self.system.problem.y_train**2))) + 1e-300
        residual = np.exp(self.log_excess / 2)
        with np.errstate(divide="ignore"):
            return 10 * np.finfo(float).eps * (1 + scale / residual)

    def _log_excess(self, run: Trajectory) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(run.data["train_loss"].to_numpy() - self.minimum, 0.0))
