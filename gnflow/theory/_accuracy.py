"""The errors that a run may have, as measured against a second run and at worst, as its solver promises.

All theorems use this one account of errors.
"""

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

# If two runs differ by d, each has an error below 2 d, except for errors that they have in common.
SAFETY = 2.0
# A run at this multiple of the tolerance has a larger error, so the difference to it shows the error of the tighter run.
LOOSER = 10.0
# The error of the reference divided by its distance to the replicate, whose tolerance is at least 16 times as large. It is four
# times the ratio of the tolerances, because errors need not fall as fast as tolerances.
_SHARE = 4 / TIGHTER
# Two runs may have the errors of a few steps in common, and their difference does not show these.
_SHARED_STEPS = 4
# How far a step may reach, as a multiple of the time at which it began.
_AHEAD = 10.0
# Relative rounding of an output, a sum of many terms, in one program, and between two programs that compute it.
ROUNDING, ROUNDING_OF_PROGRAMS = 10 * EPSILON, 100 * EPSILON
# The error of an honest run on another machine, in units of the replicate's error: as expected, and at worst.
ELSEWHERE, ELSEWHERE_AT_WORST = 2.0, 5.0

# The accuracy at which agreement says something: of the logarithm by which the loss has fallen, of the last outputs, and of a
# distance of weights. A run at the default tolerance has about this accuracy.
LOSS_RESOLUTION = 0.05
OUTPUT_RESOLUTION = 0.025
DISTANCE_RESOLUTION = 0.02
# The same for a distance of outputs against a bound: a hundredth of the movement, or a tenth of the bound.
MOVED_RESOLUTION, BOUND_RESOLUTION = 0.01, 0.1


def log_excess(run: Trajectory, minimum: float) -> np.ndarray:
    """log(L - L*) at the saved times (k,); -inf where the loss is at its infimum."""
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(run.data["train_loss"].to_numpy() - minimum, 0.0))


def rms_residual(logs: np.ndarray) -> np.ndarray:
    """r = sqrt(2 (L - L*)) from log(L - L*). For the squared loss it is the rms of ||f - y|| over the samples."""
    return np.sqrt(2) * np.exp(logs / 2)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The errors of a run that `verify` made, from its difference to another run of the same flow and from its tolerance.

    `verify` chooses the tolerance, and steps are judged in the outputs: one step may change the outputs by rtol ||f - y|| +
    atol sqrt(N), in Euclidean norms (docs/theory.md, The error norm in function space). What a solver promises assumes that
    errors decay as fast as the residual. If they do not (because a slow mode outlives the others, or the flow does not
    contract), only the other run shows the error, and its own error is the larger one.

    **Attributes:**

    - `record`: the run as it was recorded.
    - `reference`: the run whose errors these are, at a tolerance that `verify` chooses. If it could not be made, it is None,
      and only `solve_residual` is known.
    - `other`: the replicate, a run at the tolerances of the record. If it is None, all errors measured by it are infinite.
    - `flow`, `system`: the flow that acts on the weights that move, and the problem with the model's structure.
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
        """The reference, which must exist."""
        assert self.reference is not None
        return self.reference

    @functools.cached_property
    def minimum(self) -> float:
        """L*, the infimum of the loss over all outputs."""
        return float(self.system.loss.minimum(self.system.problem.y_train))

    @functools.cached_property
    def times(self) -> np.ndarray:
        """The flow times of the run's saves (k,)."""
        return self.run.data.time.to_numpy()

    @functools.cached_property
    def log_excess(self) -> np.ndarray:
        """log(L - L*) at `times`, (k,)."""
        return log_excess(self.run, self.minimum)

    @functools.cached_property
    def steps(self) -> int:
        """The number of accepted steps, at least 1."""
        return max(int(self.run.stats["num_accepted_steps"]), 1)

    @property
    def rtol(self) -> float:
        """The relative tolerance of the run."""
        return self.run.settings["rtol"]

    # Against the other run

    @functools.cached_property
    def common(self) -> tuple[np.ndarray, np.ndarray]:
        """The indices of the common times in `times` and in the times of the other run, (c,) each."""
        if self.other is None:
            return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
        at = matching(self.other.data.time.to_numpy(), self.times)
        return at[at >= 0], np.flatnonzero(at >= 0)

    def growing(self, values: np.ndarray) -> np.ndarray:
        """For each of `times` the largest of `values` (c,) at common times up to ten times as late; (k,).

        At least the next common time is included. The result is infinite if there are no common times. Later times count
        because values between two steps are interpolated, with an error that rises and falls within the step.
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
        """The largest difference of log(L - L*) between both runs, `growing` with `times`, (k,).

        It is the error of a run that was made as the record says.
        """
        with np.errstate(invalid="ignore"):
            difference = np.abs(self.log_excess[self.common[0]] - self._log_other)
        return self.growing(np.where(np.isnan(difference), 0.0, difference))  # both at the infimum

    # Rounding, and what the solver promises of one step

    @functools.cached_property
    def rounding(self) -> np.ndarray:
        """The error of log(L - L*) at `times` (k,) from the rounding of the outputs."""
        scale = float(jax.numpy.sqrt(jax.numpy.mean(self.system.problem.y_train**2))) + 1e-300
        with np.errstate(divide="ignore"):
            return ROUNDING * (1 + scale / np.exp(self.log_excess / 2))

    def relative_steps(self, residual_norms: np.ndarray) -> np.ndarray:
        """The change of ||f - y|| that one step may make in error, relative to each of `residual_norms` (k,)."""
        settings, problem = self.run.settings, self.system.problem
        with np.errstate(divide="ignore"):
            return settings["rtol"] + settings["atol"] * np.sqrt(problem.num_train) / residual_norms

    @functools.cached_property
    def weight_step(self) -> float:
        """The error of the weights that one step may make, in the Euclidean norm: rtol ||w|| + atol sqrt(P)."""
        settings, end = self.run.settings, self.system.weights(self.run.model)
        norm = max(float(tree_norm(self.start)), float(tree_norm(end)))
        return settings["rtol"] * norm + settings["atol"] * tree_size(self.start) ** 0.5

    def accumulated(self, relative: np.ndarray | float) -> np.ndarray:
        """Relative errors of single steps, summed over the run. Infinite if the error of one step may be 1 or more."""
        relative = np.asarray(relative)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(relative < 1, self.steps * relative / (1 - relative), np.inf)

    # What the solves for the direction leave

    @functools.cached_property
    def is_amplified(self) -> bool:
        """Whether the residual of a direction solve may change the rate by more than its own size."""
        return float(self.flow.residual_amplification(jax.numpy.ones(()))) != 1.0

    @functools.cached_property
    def solve_residual(self) -> float:
        """The largest relative residual of the direction solves, at the times of the reference and of the record.

        If it may change the rate by more than its own size (`AbstractFlow.residual_amplification`), that change is returned,
        for the reference alone. It is 0 for direct solvers, and nan if neither run has residuals.
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
        """The error of log(L - L*) at `times` (k,), for any comparison.

        Measured: a quarter of the largest difference to the other run so far, but at least the error of four steps. At worst:
        2 (rtol + atol/r) for each step, with the rms residual r, because the loss has twice the relative error of its root.
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
        """The relative error of a comparison of the run with the value that a theorem gives.

        If the error `promised` for all steps is below the `resolution`, it is the measured one. Otherwise the measured error is
        twice the smaller one of two distances: the `difference` of both runs, and the `deviation` of the other run from the
        theorem's value. (The value of a false theorem is far from both runs, and this distance must not excuse it.) It is at
        least the error of four steps, which both runs may have in common.
        """
        shared = _SHARED_STEPS * self.rtol
        measured = np.minimum(np.maximum(SAFETY * np.minimum(difference, deviation), shared), promised)
        measured = np.where(np.asarray(promised) <= resolution, promised, measured)
        return Error(measured, np.maximum(promised, difference))

    def loss_agreement(self, expected: np.ndarray, promised: np.ndarray, resolution: np.ndarray) -> Error:
        """The error of log(L - L*) at `times` (k,), for a theorem that says it is `expected`.

        **Arguments:**

        - `expected`: the value of the theorem (k,).
        - `promised`: the relative error of the residual that the solver promises for the run so far (k,).
        - `resolution`: the resolution of the logarithm (k,).
        """
        deviation = self.growing(np.abs(self._log_other - expected[self.common[0]]))
        # The logarithm of L has twice the relative error of the residual.
        error = self.agreement(self.between / 2, deviation / 2, promised, resolution / 2)
        # A solver interpolates between its steps and promises nothing about that, so the difference of both runs counts.
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
        """The claim that the last outputs, or a function of them, have the values that a theorem gives.

        It compares their distance divided by `scale`.

        **Arguments:**

        - `name`: the name of the claim.
        - `ends`: the values at the end of the run and of the other run, (k,) each.
        - `expected`: the values of the theorem (k,).
        - `scale`: the unit of the distance.
        - `promised`: the relative error that the solver promises.
        - `other`: errors that neither run causes.
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
        """The error of ||f - y|| at `times` (k,), if errors decay like the slowest mode.

        **Arguments:**

        - `residual_norms`: ||f - y|| (k,).
        - `slowest`: the rate of the slowest mode.
        - `difference`: the distance of both runs' last outputs divided by the last residual. The losses do not show the
          direction of an error of the outputs.
        - `between`: the difference of log(L - L*) between both runs (k,).
        """
        settings, problem = self.run.settings, self.system.problem
        rounding = ROUNDING * (residual_norms[0] + float(jax.numpy.linalg.norm(problem.y_train)))
        relative = np.maximum(np.maximum(between / 2, min(difference, 1.0)), settings["rtol"])
        measured = np.where(self.times > 0, relative * residual_norms, 0.0) + rounding
        # An error is proportional to the residual at the start of its interval, and decays until the end of the next one.
        carried, largest = np.zeros(len(self.times)), residual_norms[0]
        for i in range(1, len(self.times)):
            carried[i] = largest
            largest = max(largest * np.exp(-slowest * (self.times[i] - self.times[i - 1])), residual_norms[i])
        per_step = settings["rtol"] * carried + settings["atol"] * np.sqrt(problem.num_train)
        promised = self.steps * per_step + rounding
        return Error(np.minimum(measured, promised), np.maximum(measured, promised))

    def distance(self) -> Error:
        """The error of ||w_T - w_0||: twice the difference of both runs, and twice the error that the solver promises for the
        weights in all steps."""
        assert self.other is not None
        end, again = (self.system.weights(run.model) for run in (self.run, self.other))
        rounding = ROUNDING * float(tree_norm(end))
        promised = SAFETY * self.steps * self.weight_step + rounding
        measured = SAFETY * float(tree_norm(tree_subtract(end, again))) + rounding
        return Error(min(measured, promised), max(measured, promised))

    def elsewhere(self, honest: np.ndarray | float, is_like: bool) -> Error:
        """The error of a record that was made on another machine, if the other run has the error `honest`.

        At worst it is infinite unless the other run is a run like the record (`is_like`), because then nothing shows the error.
        """
        largest = max(float(np.max(honest)), float(self.loss.measured.max()))
        return Error(ELSEWHERE * honest, ELSEWHERE_AT_WORST * largest if is_like else math.inf)
