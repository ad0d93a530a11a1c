"""The evidence for a theorem: the record of a run, and two reruns that show what the flow does and how accurately."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from .._core import ConfigError, GnflowError, PrecisionError
from ..flows import AbstractFlow, AbstractGain
from ..geometry import System
from ..metrics import AbstractMetric, DirectionDiagnostics, PathLength
from ..models._single_precision import in_single_precision
from ..simulate import FEATURES_FIRST, Trajectory
from ._accuracy import Accuracy, log_excess
from ._claim import Check
from ._curves import Curves
from ._rate_band import RateBand, RateBandMetric, has_band
from ._reruns import Rerun, companion, ends_with, reference, reference_times, replicate
from ._settings import saved_times

_Made = TypeVar("_Made")


class OtherModelError(GnflowError):
    """The last model of a record cannot be a state of a run that began with the first model.

    **Attributes:**

    - `hypothesis`: the hypothesis that fails.
    """

    hypothesis: ClassVar[str] = "the last model is the first with other weights"


class Evidence:
    """A run as theorems see it. Everything is computed on first use, and kept.

    `verify` makes two further runs. The *replicate* repeats the same call. The *reference* is the same flow at a tolerance that
    does not depend on the record, saved at every recorded time and more, with the measurements that theorems need. Theorems
    are checked on the reference, and the record is compared with both (`record_claims`). No error is taken from what the record
    says about itself. If the repeated call ends elsewhere than the record, a third run takes the place of the replicate: the
    *companion*, at the recorded tolerances and up to the end of the record.

    **Arguments:**

    - `trajectory`: from `simulate` or `iterate`.

    **Raises:** `ConfigError` for anything else; `PrecisionError` for a run of a model in single precision.
    """

    def __init__(self, trajectory: Any):
        if not isinstance(trajectory, Trajectory):
            raise ConfigError(
                f"verify takes one Trajectory (from simulate, iterate or load), not a {type(trajectory).__name__}."
            )
        if in_single_precision(trajectory.initial_model):
            raise PrecisionError(
                "this run's model is evaluated in float32, and certificates are made in float64: repeat the run with the model "
                "in float64, trajectory.initial_model.model."
            )
        self.trajectory: Trajectory = trajectory
        self._kept: dict[Hashable, Any] = {}

    def once(self, name: Hashable, make: Callable[[], _Made]) -> _Made:
        """The result of `make`, which is called only the first time for each `name`: several theorems may need the same run."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @property
    def is_continuous(self) -> bool:
        """Whether the run is a flow in continuous time (`simulate`), and not a sequence of steps."""
        return self.trajectory.settings.get("kind") == "simulate" or "time" in self.trajectory.data.dims

    @property
    def solves_readout(self) -> bool:
        """Whether the run is one of `train_features_first`."""
        return self.trajectory.settings.get("kind") == FEATURES_FIRST

    @property
    def flow(self) -> AbstractFlow:
        """The flow that acts on the weights that move."""
        return self.trajectory.flow.dynamics

    @property
    def gain(self) -> AbstractGain | None:
        """The gain of the flow; None if it has none."""
        return self.flow.gain(self.system)

    @property
    def law(self) -> AbstractGain:
        """The gain of a flow that is known to have one."""
        assert self.gain is not None
        return self.gain

    @property
    def decays(self) -> bool:
        """Whether the flow has weight decay."""
        return self.flow.decay(self.start, self.system) is not None

    @property
    def never_ascends(self) -> bool:
        """Whether the loss itself, without a penalty, cannot rise along the flow."""
        return self.flow.never_ascends(self.system) and self.flow.penalty(self.start, self.system) is None

    @functools.cached_property
    def system(self) -> System:
        """The problem joined with the model's structure."""
        return self.trajectory.system

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
        """The saved flow times (n,), the first of which is 0."""
        return saved_times(self.trajectory)

    @functools.cached_property
    def recorded_log_excess(self) -> np.ndarray:
        """log(L - L*) at the saved times (n,), as recorded; -inf where the recorded loss is at its infimum."""
        return log_excess(self.trajectory, self.minimum)

    @functools.cached_property
    def minimum(self) -> float:
        """L*, the infimum of the loss over all outputs."""
        return float(self.system.loss.minimum(self.system.problem.y_train))

    @functools.cached_property
    def replicate_rerun(self) -> Rerun:
        """The rerun of the same call."""
        return replicate(self.trajectory)

    @functools.cached_property
    def reference_rerun(self) -> Rerun:
        """The rerun that is the reference. It measures the band of rates, or the residual of the direction, if there is one."""
        times = self.recorded_times
        if len(times) < 2 or not (np.all(np.isfinite(times)) and times[0] == 0 and np.all(np.diff(times) > 0)):
            return Rerun(None, "the saved times do not ascend from 0")
        again = self.replicate_rerun.trajectory
        replicated = self.recorded_times if again is None else again.data.time.to_numpy()
        return self._refer(reference_times(self.recorded_times, replicated), self._metrics())

    def _metrics(self) -> tuple[AbstractMetric, ...]:
        metrics: list[AbstractMetric] = [RateBandMetric(self.flow)] if has_band(self.flow, self.system) else []
        if self.flow.reported_rate is not None:
            metrics.append(DirectionDiagnostics())
        if "path_length" in self.trajectory.data:
            metrics.append(PathLength())
        return tuple(metrics)

    @functools.cached_property
    def reference(self) -> Trajectory | None:
        """The reference run, or None if it could not be made."""
        return self.reference_rerun.trajectory

    @functools.cached_property
    def companion_rerun(self) -> Rerun:
        """The rerun of the same call if it ends like the record, and otherwise the companion."""
        again = self.replicate_rerun.trajectory
        if again is None or self.reference is None or ends_with(again, self.recorded_times):
            return self.replicate_rerun
        times, taken = self.reference.data.time.to_numpy(), again.stats["num_steps"]
        return companion(self.trajectory, times, self._metrics(), taken)

    @functools.cached_property
    def replicate(self) -> Trajectory | None:
        """A run to the end of the record at its tolerances, or None if it could not be made."""
        return self.companion_rerun.trajectory

    @property
    def flow_run(self) -> Trajectory:
        """The reference run, once `repeated` is met."""
        assert self.reference is not None
        return self.reference

    @property
    def replicate_run(self) -> Trajectory:
        """The replicate, or the companion, once `repeated` is met."""
        assert self.replicate is not None
        return self.replicate

    @property
    def same_call(self) -> Trajectory:
        """The run that the recorded call gives again, once `repeated` is met."""
        assert self.replicate_rerun.trajectory is not None
        return self.replicate_rerun.trajectory

    def repeat(
        self, times: np.ndarray, metrics: tuple[AbstractMetric, ...], rtol: float | None = None
    ) -> Trajectory | None:
        """A run like the reference with other times and metrics, or another tolerance; None if it fails."""
        return self._refer(times, metrics, rtol).trajectory

    def _refer(self, times: np.ndarray, metrics: tuple[AbstractMetric, ...], rtol: float | None = None) -> Rerun:
        again = self.replicate_rerun.trajectory
        return reference(self.trajectory, times, metrics, 0 if again is None else again.stats["num_steps"], rtol)

    def repeated(self, *others: Trajectory | None) -> Check:
        """The hypothesis that both runs, and `others` from `repeat`, could be made. Without them everything is undecided."""
        reason = self.reference_rerun.reason or self.companion_rerun.reason
        if not reason and any(other is None for other in others):
            reason = "a rerun that measures more than these does not reach the end"
        name = "the run can be repeated"
        return Check.unknown(name, reason) if reason else Check.fact(name, True)

    @functools.cached_property
    def times(self) -> np.ndarray:
        """The flow times (k,) at which the reference is known: the recorded ones and others between them."""
        return self.flow_run.data.time.to_numpy()

    @functools.cached_property
    def log_excess(self) -> np.ndarray:
        """log(L - L*) of the reference at `times` (k,); -inf where the loss is at its infimum."""
        return log_excess(self.flow_run, self.minimum)

    @functools.cached_property
    def flow_end(self) -> Any:
        """The last trained weights of the reference."""
        return self.system.weights(self.flow_run.model)

    @functools.cached_property
    def replicated_end(self) -> Any:
        """The last trained weights of the replicate, once `repeated` is met."""
        return self.system.weights(self.replicate_run.model)

    @functools.cached_property
    def band(self) -> RateBand:
        """The band of rates along the reference, for a flow that has one."""
        return RateBand.of(self.flow_run)

    @functools.cached_property
    def accuracy(self) -> Accuracy:
        """The errors of the reference, measured against the replicate."""
        reference = self.reference if self.is_continuous else None
        replicate = None if reference is None else self.replicate
        return Accuracy(self.trajectory, reference, replicate, self.flow, self.system, self.start)

    def outputs(self, weights: Any, x: Any = None) -> np.ndarray:
        """The model's outputs on the training inputs, or on `x` (n, d), as one vector (n C,)."""
        return np.asarray(jax.device_get(self.system.outputs(weights, x))).reshape(-1)

    def loss_curve(self, lower: np.ndarray | None, upper: np.ndarray, log_x: bool = True) -> Curves:
        """Curves of the excess loss of the reference after its start, with bounds given at `times` (k,)."""
        lower = None if lower is None else lower[1:]
        return Curves(self.times[1:], "flow time", "L - L*", np.exp(self.log_excess[1:]), lower, upper[1:], log_x=log_x)

    @functools.cached_property
    def start_gram(self) -> np.ndarray:
        """The Gram matrix A at the start, (NC, NC)."""
        return np.asarray(jax.device_get(_gram(self.system, self.start)))

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """The training targets as one vector, (NC,)."""
        return np.asarray(self.system.problem.y_train).reshape(-1)


@eqx.filter_jit
def _gram(system: System, weights: Any) -> Float[Array, "rows rows"]:
    return system.tangent(weights).gram()
