"""The distance of a run from that of the linearised model, bounded by the movement of its kernel."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ..simulate import Trajectory
from ._accuracy import BOUND_RESOLUTION, MOVED_RESOLUTION, TINY
from ._base import AbstractTheorem, Conclusion, Hypotheses, in_stages
from ._claim import Check, Error, at_times, compare
from ._continuity import continuity
from ._convolution import mode_bound, movement_bound
from ._curves import Curves
from ._evidence import Evidence
from ._hypotheses import continuous_time, squared_loss
from ._movement import Movement, gain, has_gain, movement_run

_SOURCE = "docs/theorems/linearised_distance.md"
_BY_KERNEL, _BY_MODE = "by the kernel's movement", "mode by mode"


@dataclasses.dataclass(frozen=True)
class LinearisedDistance(AbstractTheorem):
    """Theorem D of docs/theorems/linearised_distance.md; the linearised run: Lee et al. 2019 (arXiv 1902.06720).

    Squared loss, f' = -(1/N) B_t (f - y), and f^lin the outputs of the model linearised at the start, under the same
    flow. Then

        ||f_t - f^lin_t|| <= (1/N) int_0^t exp(-b_0 (t - s)/N) ||B_s - B_0|| ||f_s - y|| ds

    with b_0 the smallest eigenvalue of B_0; and the same in each mode of A_0, with the movement that the residual sees.
    """

    name: ClassVar[str] = "linearised distance"
    statement: ClassVar[str] = "||f - f^lin|| <= (1/N) int exp(-b_0 (t - s)/N) ||B_s - B_0|| ||f_s - y|| ds"
    reference: ClassVar[str] = f"{_SOURCE}, Theorem D; Lee et al. 2019 (arXiv 1902.06720)"
    own_runs: ClassVar[bool] = True

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """Squared loss, a flow with a gain that is a function of the Gram matrix; no assumption on the spectrum."""
        squared, law = squared_loss(evidence), evidence.gain
        known = has_gain(evidence.flow, evidence.system) or not squared.met
        # Then the linearised run has a closed form.
        autonomous = law is not None and not law.damping.depends_on_time
        yield (
            continuous_time(evidence),
            squared,
            Check.fact("the flow is gradient, spectral, or Gauss-Newton with H = h I and a direct solver", known),
            Check.fact("the damping does not depend on time", autonomous),
        )
        yield (continuity(evidence),)
        yield (evidence.repeated(movement_run(evidence)),)

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The distance along a rerun against both bounds."""
        again = movement_run(evidence)
        assert again is not None
        measured, count = Movement.of(again), evidence.system.problem.num_train
        times, residual, drive = measured.times, measured.residual, measured.drive
        gains, _, _ = (
            np.asarray(a) for a in gain(evidence.flow, evidence.system, jnp.asarray(evidence.start_gram), jnp.zeros(()))
        )
        rates = np.maximum(gains, 0.0) / count
        linear = np.exp(-np.outer(times, rates)) * residual[0]
        distance, size = np.linalg.norm(residual - linear, axis=1), np.linalg.norm(residual, axis=1)
        squares = np.maximum(count * np.sum(residual**2, axis=1), TINY)
        slope = np.sum(residual * (drive + count * rates * residual), axis=1) / squares
        bounds = {
            _BY_KERNEL: movement_bound(times, measured.gain / count, size, slope, rates.min()),
            _BY_MODE: mode_bound(times, drive / count, rates),
        }
        error = self._error(evidence, again, size, rates.min())
        trivial = size + np.linalg.norm(linear, axis=1)
        claims = []
        constants = {
            "N": float(count),
            "smallest rate b_0/N": float(rates.min()),
            "largest ||B_t - B_0||/||B_0||": float(measured.gain.max() / max(np.max(gains), TINY)),
            "largest ||f_t - f^lin_t||/||f_0 - y||": float(distance.max() / size[0]),
        }
        for which, integral in bounds.items():
            # Beyond ||r|| + ||r^lin|| a bound says nothing that the triangle inequality does not.
            at = np.flatnonzero((integral.low < trivial) & (times > 0))
            surely = at[distance[at] > error.at_worst[at]]
            if len(surely):
                ratio = distance[surely] / integral.value[surely]
                constants[f"largest distance over its bound {which}"] = float(ratio.max())
            constants[f"times at which the bound {which} says something"] = float(len(at))
            if len(at):
                bound, name = integral.value[at], f"||f - f^lin|| is within the bound {which}"
                # What the distance must be known to: a part of ||r|| + ||r^lin||, or of the bound.
                resolution = np.maximum(MOVED_RESOLUTION * trivial[at], BOUND_RESOLUTION * bound)
                both, where = (error + integral.error)[at], at_times(times[at])
                claims.append(compare(name, distance[at], "<=", bound, both, resolution, where))
        later, high = slice(1, None), bounds[_BY_MODE].high
        curves = (Curves(times[later], "flow time", "||f - f^lin||", distance[later], upper=high[later]),)
        return Conclusion(tuple(claims), constants, curves)

    def _error(self, evidence: Evidence, again: Trajectory, size: np.ndarray, slowest: float) -> Error:
        """The error of the rerun's outputs at its times, which have the distance `size` from the targets."""
        accuracy, system = evidence.accuracy, evidence.system
        last, other = evidence.outputs(system.weights(again.model)), evidence.outputs(evidence.replicated_end)
        difference = float(np.linalg.norm(last - other)) / max(size[-1], TINY)
        # The rerun saves at other times than the reference: what was between the reference and the replicate until the next.
        times = again.data.time.to_numpy()
        between = accuracy.between[np.minimum(np.searchsorted(evidence.times, times), len(evidence.times) - 1)]
        return dataclasses.replace(accuracy, reference=again).outputs(size, slowest, difference, between)
