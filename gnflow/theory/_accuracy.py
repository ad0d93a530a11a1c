"""What the errors of a run can be: as measured against a second run, and at worst, as its solver promises. One account
for all."""

import dataclasses
import functools
import math

import jax
import numpy as np
from jaxtyping import PyTree

from .._core import tree_norm, tree_size, tree_subtract
from ..flows import AbstractFlow
from ..geometry import System
from ..simulate import Trajectory
from ._claim import Claim, Error, at_times, compare
from ._rate_band import RateBand
from ._reruns import TIGHTER, matching

EPSILON = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).tiny)

# Two runs that differ by d are off by less than 2 d each, but for what they have in common.
SAFETY = 2.0
# A run at so many times the tolerance is further off: by its difference the error of the tighter one is known.
LOOSER = 10.0
# The error of the reference over its distance to the replicate, whose tolerance is at least 16 times as large: four
# times what their ratio gives, for errors need not fall as fast as tolerances.
_SHARE = 4 / TIGHTER
# Two runs may make the error of a few steps alike, so that their difference does not show it.
_SHARED_STEPS = 4
# How far a step may reach, in times of where it began.
_AHEAD = 10.0
# Relative rounding of an output, a sum of many terms, in one program; and between two programs that compute it.
ROUNDING, ROUNDING_OF_PROGRAMS = 10 * EPSILON, 100 * EPSILON
# An honest run made on another machine is off by twice what the replicate is off by; at worst by five times that.
ELSEWHERE, ELSEWHERE_AT_WORST = 2.0, 5.0

# What agreement must be known to, so that it says something: of the logarithm that the loss has fallen by, a twentieth;
# of the last outputs; of a distance of weights. A run at the default tolerance is known to about that.
LOSS_RESOLUTION = 0.05
OUTPUT_RESOLUTION = 0.025
DISTANCE_RESOLUTION = 0.02
# Of a distance of outputs against a bound: a hundredth of what moved, or a tenth of the bound.
MOVED_RESOLUTION, BOUND_RESOLUTION = 0.01, 0.1


def log_excess(run: Trajectory, minimum: float) -> np.ndarray:
    """log(L - L*) at the saved times, (k,); -inf where the run is at the infimum of the loss."""
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(run.data["train_loss"].to_numpy() - minimum, 0.0))


def rms_residual(logs: np.ndarray) -> np.ndarray:
    """r = sqrt(2 (L - L*)) from log(L - L*): of the squared loss the rms over samples of ||f - y||."""
    return np.sqrt(2) * np.exp(logs / 2)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Errors of a run that `verify` made, as it differs from another run of the same flow and as its solver promises them.

    Its tolerance is verify's own and its steps are judged in the outputs: one may change the outputs by rtol ||f - y||
    + atol sqrt(N), in Euclidean norms (docs/theory.md, The error norm in function space). What a solver promises counts
    on errors that decay as fast as the residual. Where they do not (a slow mode outlives the others, a flow does not
    contract) only the other run tells, whose error is the larger one.

    **Attributes:**

    - `record`: the run as it was recorded.
    - `reference`: whose errors these are, a run at a tolerance of verify's own; None where it could not be made: then
      only `solve_residual` is known.
    - `other`: a run at the record's tolerances: the replicate. None where there is none: then all is infinite that it tells.
    - `flow`, `system`: the flow that acts on the weights that move, and what it acts on.
    - `start`: the first trained weights.
    """

    record: Trajectory
    reference: Trajectory | None
    other: Trajectory | None
    flow: AbstractFlow
    system: System
    start: PyTree

    @property
    def run(self) -> Trajectory:
        """The reference, where there is one."""
        assert self.reference is not None
        return self.reference

    @functools.cached_property
    def minimum(self) -> float:
        """L*, the infimum of the loss over all outputs."""
        return float(self.system.loss.minimum(self.system.problem.y_train))

    @functools.cached_property
    def times(self) -> np.ndarray:
        """Flow times of the run's saves, (k,)."""
        return self.run.data.time.to_numpy()

    @functools.cached_property
    def log_excess(self) -> np.ndarray:
        """log(L - L*) at `times`, (k,)."""
        return log_excess(self.run, self.minimum)

    @functools.cached_property
    def steps(self) -> int:
        """Accepted steps, at least 1."""
        return max(int(self.run.stats["num_accepted_steps"]), 1)

    @property
    def rtol(self) -> float:
        """The relative tolerance of the run."""
        return self.run.settings["rtol"]

    # Against the other run

    @functools.cached_property
    def common(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices into `times` and into the other run's times of those that are the same, (c,) each."""
        if self.other is None:
            return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
        at = matching(self.other.data.time.to_numpy(), self.times)
        return at[at >= 0], np.flatnonzero(at >= 0)

    def growing(self, values: np.ndarray) -> np.ndarray:
        """The largest of `values`, (c,) at the common times, up to ten times each of `times`, (k,), and at least to the
        next common one; infinite without any.

        Ahead, because values between two steps are interpolated, with an error that rises and falls within the step.
        """
        at, _ = self.common
        if not len(at):
            return np.full(len(self.times), np.inf)
        following = np.searchsorted(self.times[at], _AHEAD * self.times, side="right") - 1
        following = np.maximum(following, np.searchsorted(at, np.arange(len(self.times))))
        return np.maximum.accumulate(values)[np.minimum(following, len(at) - 1)]

    @functools.cached_property
    def _log_other(self) -> np.ndarray:
        """log(L - L*) of the other run at the common times, (c,)."""
        return np.zeros(0) if self.other is None else log_excess(self.other, self.minimum)[self.common[1]]

    @functools.cached_property
    def between(self) -> np.ndarray:
        """The largest difference of log(L - L*) between both runs, `growing` with `times`, (k,): the error that a run
        has which is made as the record says."""
        with np.errstate(invalid="ignore"):
            difference = np.abs(self.log_excess[self.common[0]] - self._log_other)
        return self.growing(np.where(np.isnan(difference), 0.0, difference))  # both at the infimum

    # Rounding, and what the solver promises of one step

    @functools.cached_property
    def rounding(self) -> np.ndarray:
        """Error of log(L - L*) at `times` from the last digit of the outputs, (k,)."""
        scale = float(jax.numpy.sqrt(jax.numpy.mean(self.system.problem.y_train**2))) + 1e-300
        with np.errstate(divide="ignore"):
            return ROUNDING * (1 + scale / np.exp(self.log_excess / 2))

    def relative_steps(self, residual_norms: np.ndarray) -> np.ndarray:
        """What one step may change ||f - y|| by, relative to each of `residual_norms`, (k,)."""
        settings, problem = self.run.settings, self.system.problem
        with np.errstate(divide="ignore"):
            return settings["rtol"] + settings["atol"] * np.sqrt(problem.num_train) / residual_norms

    @functools.cached_property
    def weight_step(self) -> float:
        """The Euclidean norm of the error of all weights that one step may make: rtol ||w|| + atol sqrt(P)."""
        settings, end = self.run.settings, self.system.weights(self.run.model)
        norm = max(float(tree_norm(self.start)), float(tree_norm(end)))
        return settings["rtol"] * norm + settings["atol"] * tree_size(self.start) ** 0.5

    def accumulated(self, relative: np.ndarray | float) -> np.ndarray:
        """Relative errors of single steps summed over the run; infinite where one step may be off by all there is."""
        relative = np.asarray(relative)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(relative < 1, self.steps * relative / (1 - relative), np.inf)

    # What the solves for the direction leave

    @functools.cached_property
    def is_amplified(self) -> bool:
        """Whether the residual of a solve may change more of the rate than its own size."""
        return float(self.flow.residual_amplification(jax.numpy.ones(()))) != 1.0

    @functools.cached_property
    def solve_residual(self) -> float:
        """The largest of the solves for the direction, relative, at the times of the reference and where it was recorded.

        Where it may change more of the rate than its own size (`AbstractFlow.residual_amplification`) it is that, of
        the reference alone. 0 for direct solvers; nan where neither is there.
        """
        if not self.flow.solves_iteratively:
            return 0.0
        found = []
        if not self.is_amplified and "relative_residual" in self.record.data:
            found.append(float(self.record.data["relative_residual"].max()))
        if self.reference is not None and RateBand.is_of(self.reference):
            found.append(float(RateBand.of(self.reference).residual.max()))
        return max(found, default=math.nan)

    # Errors of what theorems compare

    @functools.cached_property
    def loss(self) -> Error:
        """Of log(L - L*) at `times`, (k,), whatever it is compared with.

        Measured: a quarter of the largest difference to the other run so far, at least what four steps may do. At worst: 2
        (rtol + atol/r) for each step, r the rms residual, because the loss has twice the relative error of its root.
        """
        settings = self.run.settings
        with np.errstate(divide="ignore"):
            promised = 2 * (settings["rtol"] + settings["atol"] / rms_residual(self.log_excess)) * self.steps
        at_worst = np.maximum(promised, self.between[-1]) + self.rounding
        shared = 2 * settings["rtol"] * _SHARED_STEPS * (self.times > 0)
        return Error(np.minimum(np.maximum(_SHARE * self.between, shared) + self.rounding, at_worst), at_worst)

    def agreement(
        self,
        difference: np.ndarray | float,
        deviation: np.ndarray | float,
        promised: np.ndarray | float,
        resolution: np.ndarray | float,
    ) -> Error:
        """Of a comparison of the run with the value that a theorem gives, relative, as rtol is.

        Measured it is what is `promised` for all steps where that is below the `resolution`. Where it says too little,
        twice the smaller of the `difference` of both runs and the `deviation` of the other run from the theorem's
        value: a theorem that is false is far from both runs, which must not excuse it. That at least what four steps
        may do, which both may have in common.
        """
        shared = _SHARED_STEPS * self.rtol
        measured = np.minimum(np.maximum(SAFETY * np.minimum(difference, deviation), shared), promised)
        measured = np.where(np.asarray(promised) <= resolution, promised, measured)
        return Error(measured, np.maximum(promised, difference))

    def loss_agreement(self, expected: np.ndarray, promised: np.ndarray, resolution: np.ndarray) -> Error:
        """Of log(L - L*) at `times`, (k,), where a theorem says that it is `expected`.

        **Arguments:** `promised`: relative error of the residual that the solver promises of the run so far;
        `resolution` of the logarithm.
        """
        deviation = self.growing(np.abs(self._log_other - expected[self.common[0]]))
        # The logarithm of L has twice the relative error of the residual.
        error = self.agreement(self.between / 2, deviation / 2, promised, resolution / 2)
        # Between its steps a solver interpolates, of which it promises nothing: both runs tell.
        measured = np.maximum(2 * error.measured, _SHARE * self.between)
        return Error(measured, np.maximum(2 * promised, self.between[-1])) + self.rounding

    def last_outputs(
        self,
        name: str,
        ends: tuple[np.ndarray, np.ndarray],
        expected: np.ndarray,
        scale: float,
        promised: float,
        other: Error,
    ) -> Claim:
        """The claim that the last outputs, or what is made of them, are those that a theorem gives: their distance over
        `scale`.

        **Arguments:**

        - `ends`: what the run ends at, and what the other run ends at, (k,) each.
        - `expected` (k,): what they should be.
        - `promised`: the relative error that the solver promises of them; `other`: errors that have to do with neither run.
        """
        last, again = ends
        with np.errstate(divide="ignore", invalid="ignore"):
            distance, difference, deviation = (
                float(np.linalg.norm(change) / np.float64(scale))
                for change in (last - expected, last - again, again - expected)
            )
        error = self.agreement(difference, deviation, promised, OUTPUT_RESOLUTION) + other
        return compare(name, distance, "==", 0.0, error, OUTPUT_RESOLUTION, at_times(self.times[-1:])[0])

    def outputs(self, residual_norms: np.ndarray, slowest: float, difference: float, between: np.ndarray) -> Error:
        """Of ||f - y|| at `times`, (k,), where errors decay as the slowest mode does.

        **Arguments:** `residual_norms` (k,): ||f - y||; `slowest`: that rate; `difference`: of both runs' last outputs, over
        the last residual, for the losses do not see in which direction outputs err; `between` (k,): of log(L - L*).
        """
        settings, problem = self.run.settings, self.system.problem
        rounding = ROUNDING * (residual_norms[0] + float(jax.numpy.linalg.norm(problem.y_train)))
        relative = np.maximum(np.maximum(between / 2, min(difference, 1.0)), settings["rtol"])
        measured = np.where(self.times > 0, relative * residual_norms, 0.0) + rounding
        # An error is made at the residual of the start of its interval and decays until the end of the next.
        carried, largest = np.zeros(len(self.times)), residual_norms[0]
        for i in range(1, len(self.times)):
            carried[i] = largest
            largest = max(largest * np.exp(-slowest * (self.times[i] - self.times[i - 1])), residual_norms[i])
        per_step = settings["rtol"] * carried + settings["atol"] * np.sqrt(problem.num_train)
        promised = self.steps * per_step + rounding
        return Error(np.minimum(measured, promised), np.maximum(measured, promised))

    def distance(self) -> Error:
        """Of ||w_T - w_0||: twice the difference of both runs, and twice what the solver promises of the weights in all
        steps."""
        assert self.other is not None
        end, again = (self.system.weights(run.model) for run in (self.run, self.other))
        rounding = ROUNDING * float(tree_norm(end))
        promised = SAFETY * self.steps * self.weight_step + rounding
        measured = SAFETY * float(tree_norm(tree_subtract(end, again))) + rounding
        return Error(min(measured, promised), max(measured, promised))

    def elsewhere(self, honest: np.ndarray | float, is_like: bool) -> Error:
        """Of a record that was made on another machine, where the other run is off by `honest`.

        At worst it is infinite where the other run is no run like the record (`is_like`), so that nothing tells.
        """
        largest = max(float(np.max(honest)), float(self.loss.measured.max()))
        return Error(ELSEWHERE * honest, ELSEWHERE_AT_WORST * largest if is_like else math.inf)
