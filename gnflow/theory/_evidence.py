"""What a run tells a theorem: its record, how accurate that is, and what a second run adds."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax
import numpy as np

from .._core import ConfigError
from ..flows import AbstractFlow
from ..geometry import System
from ..metrics import AbstractMetric
from ..simulate import Trajectory, simulate
from ..solvers import solver_kinds
from ._check import Check
from ._rate_band import RateBand, has_band

# The second run: looser, so that it is cheaper and its error the larger of the two.
LOOSER = 4.0
# Two runs that differ by d: the tighter one's error is below d if tolerances mean anything; twice that is used.
_SAFETY = 2.0
_SHARED_STEPS = 4
_OUTLIVING = 10.0
_MOST_TIMES = 16

_Made = TypeVar("_Made")


def rms_residual(log_excess: np.ndarray) -> np.ndarray:
    """r = sqrt(2 (L - L*)) from log(L - L*): of the squared loss the rms over samples of ||f - y||."""
    return np.sqrt(2) * np.exp(log_excess / 2)


class Evidence:
    """A run as theorems see it. Everything is computed when first asked for, and kept.

    The *second run* repeats the run at 4 times its tolerance, to its end time, and measures the band of rates at up to 16
    of the saved times: it tells how accurate the record is, and what the record does not hold.

    **Arguments:** `trajectory`: from `simulate` or `iterate`.

    **Raises:** `ConfigError` for anything else.
    """

    def __init__(self, trajectory: Any):
        if not isinstance(trajectory, Trajectory):
            raise ConfigError(f"verify takes a Trajectory (from simulate, iterate or load), not {trajectory!r}.")
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
        return self.trajectory.settings["kind"] == "simulate"

    @property
    def flow(self) -> AbstractFlow:
        """The flow that acts on the weights that move."""
        return self.trajectory.flow.dynamics

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
        """The last trained weights."""
        return self.system.weights(self.trajectory.model)

    @functools.cached_property
    def times(self) -> np.ndarray:
        """Saved flow times (n,), the first 0."""
        data = self.trajectory.data
        return data["time" if self.is_continuous else "flow_time"].to_numpy()

    @functools.cached_property
    def minimum(self) -> float:
        """L*, the infimum of the loss over all outputs."""
        return float(self.system.loss.minimum(self.system.problem.y_train))

    @functools.cached_property
    def log_excess(self) -> np.ndarray:
        """log(L - L*) at the saved times, as recorded; -inf where the record is at the infimum."""
        excess = self.trajectory.data["train_loss"].to_numpy() - self.minimum
        with np.errstate(divide="ignore"):
            return np.log(np.maximum(excess, 0.0))

    @functools.cached_property
    def chosen(self) -> np.ndarray:
        """Indices of the saved times at which the second run measures: first, last, and up to 14 spread between them."""
        count = len(self.times)
        return np.unique(np.round(np.linspace(0, count - 1, min(count, _MOST_TIMES))).astype(int))

    @functools.cached_property
    def second_run(self) -> Trajectory | None:
        """The run again, saved at the chosen times, with the band of rates where the flow has one; None as of `repeat`."""
        return self.repeat(self.times[self.chosen], (RateBand(self.flow),) if has_band(self.flow) else ())

    def repeat(self, times: np.ndarray, metrics: tuple[AbstractMetric, ...]) -> Trajectory | None:
        """The run again at 4 times its tolerance and to its end; None where that fails or the run has no length.

        **Arguments:** `times` (k,): when to save, first 0 and last the end; `metrics`: what to measure then.
        """
        settings, end = self.trajectory.settings, float(self.times[-1])
        if not self.is_continuous or end <= 0:
            return None
        name = settings["solver"]
        inner = times[(times > 0) & (times < end)]
        again = simulate(
            self.trajectory.problem,
            self.trajectory.initial_model,
            self.trajectory.flow,
            t1=end,
            stop=None,
            saveat=inner if len(inner) else [end],
            solver=name if name in solver_kinds else "auto",
            rtol=LOOSER * settings["rtol"],
            atol=LOOSER * settings["atol"],
            error_norm=settings["error_norm"],
            metrics=metrics,
            max_steps=settings["max_steps"],
            throw=False,
        )
        return None if again.result.failed or len(again.data.time) != len(times) else again

    @staticmethod
    def repeated(again: Trajectory | None, remark: str = "") -> Check:
        """The hypothesis that a repeated run was there to be had; `again` as `second_run` or `repeat` gave it."""
        return Check.fact(f"the run can be repeated at {LOOSER:g} times its tolerance", again is not None, remark)

    @functools.cached_property
    def tolerance(self) -> np.ndarray:
        """The error of log(L - L*) at the chosen times, (k,), as measured: twice the largest difference to the second run
        so far, at least what the solver promises of four steps (an error that both runs may share), at most what it
        promises of all. Infinite without a second run."""
        shared = 2 * self.trajectory.settings["rtol"] * _SHARED_STEPS * (self.chosen > 0)
        return np.minimum(np.maximum(self._measured, shared) + self.rounding[self.chosen], self.error_bound)

    @functools.cached_property
    def error_bound(self) -> np.ndarray:
        """The error of log(L - L*) at the chosen times, (k,), at worst: 2 (rtol + atol/r) for each accepted step, r the rms
        residual (docs/theory.md, The error norm in function space), and rounding.

        That counts on errors that decay as fast as the residual. For a flow whose modes decay at rates that spread, an
        early error in a slow mode may outlive the others: there it is twice the difference to the second run, where that is
        larger, but no more than ten times what is promised (a record that was changed is not to excuse itself).
        Infinite with `error_norm="weights"`, which promises nothing of the outputs."""
        settings = self.trajectory.settings
        if settings["error_norm"] != "function":
            return np.full(len(self.chosen), np.inf)
        steps = max(self.trajectory.stats["num_accepted_steps"], 1)
        with np.errstate(divide="ignore"):
            relative = settings["rtol"] + settings["atol"] / rms_residual(self.log_excess[self.chosen])
        promised = 2 * relative * steps
        if getattr(self.flow, "is_stiff", True):
            promised = np.clip(self._measured, promised, _OUTLIVING * promised)
        return promised + self.rounding[self.chosen]

    @functools.cached_property
    def _measured(self) -> np.ndarray:
        """Twice the largest difference of log(L - L*) to the second run up to each chosen time; infinite without one."""
        if self.second_run is None:
            return np.full(len(self.chosen), np.inf)
        with np.errstate(divide="ignore"):
            again = np.log(np.maximum(self.second_run.data["train_loss"].to_numpy() - self.minimum, 0.0))
        return _SAFETY * np.maximum.accumulate(np.abs(self.log_excess[self.chosen] - again))

    @functools.cached_property
    def rounding(self) -> np.ndarray:
        """Error of log(L - L*) at the saved times from the last digit of the outputs, (n,)."""
        scale = float(jax.numpy.sqrt(jax.numpy.mean(self.system.problem.y_train**2))) + 1e-300
        residual = np.exp(self.log_excess / 2)
        with np.errstate(divide="ignore"):
            return 10 * np.finfo(float).eps * (1 + scale / residual)
