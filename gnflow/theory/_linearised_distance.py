"""How far a run leaves the linearised model's, bounded by how far its kernel moves; and the run that measures the movement."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ..flows import AbstractFlow
from ..geometry import System
from ..simulate import Trajectory
from ._base import AbstractTheorem, Conclusion, Hypotheses
from ._certificate import Curves
from ._check import Check
from ._claim import Claim, worst_claim
from ._continuity import continuity
from ._convolution import Integral, mode_bound, movement_bound
from ._evidence import Evidence
from ._movement import gain, has_gain, movement_run

_SOURCE = "docs/theorems/linearised_distance.md"
# What the distance must be known to: a hundredth of ||r|| + ||r^lin||, or a tenth of the bound.
_RESIDUAL_RESOLUTION = 0.01
_BOUND_RESOLUTION = 0.1
_BY_KERNEL, _BY_MODE = "by the kernel's movement", "mode by mode"
_EPSILON = float(np.finfo(float).eps)


def _keeps_time_out(flow: AbstractFlow, system: System) -> bool:
    """Whether the gain is a function of the Gram matrix alone, so that the linearised run has a closed form."""
    gain = flow.gain(system)
    return gain is not None and not gain.damping.depends_on_time


@dataclasses.dataclass(frozen=True)
class LinearisedDistance(AbstractTheorem):
    """Theorem D of docs/theorems/linearised_distance.md; the linearised run: Lee et al. 2019 (arXiv 1902.06720).

    Squared loss, f' = -(1/N) B_t (f - y), and f^lin the outputs of the model linearised at the start, under the same flow. Then

        ||f_t - f^lin_t|| <= (1/N) int_0^t exp(-b_0 (t - s)/N) ||B_s - B_0|| ||f_s - y|| ds

    with b_0 the smallest eigenvalue of B_0; and the same in each mode of A_0, with the movement that the residual sees.
    """

    name: ClassVar[str] = "linearised distance"
    statement: ClassVar[str] = "||f - f^lin|| <= (1/N) int exp(-b_0 (t - s)/N) ||B_s - B_0|| ||f_s - y|| ds"
    reference: ClassVar[str] = f"{_SOURCE}, Theorem D; Lee et al. 2019 (arXiv 1902.06720)"
    own_runs: ClassVar[bool] = True

    def hypotheses(self, evidence: Evidence) -> Hypotheses:
        """Squared loss, a flow with a gain that is a function of the Gram matrix; no assumption on the spectrum."""
        flow = evidence.flow
        checks = [
            Check.fact("the run is a flow in continuous time", evidence.is_continuous),
            Check.fact(
                "the loss is the squared loss",
                evidence.system.loss.is_squared_distance,
                type(evidence.system.loss).__name__,
            ),
            Check.fact(
                "the flow is gradient, spectral, or Gauss-Newton with H = h I and a direct solver",
                has_gain(flow, evidence.system) or not evidence.system.loss.is_squared_distance,
            ),
            Check.fact("the damping does not depend on time", _keeps_time_out(flow, evidence.system)),
        ]
        if all(check.met for check in checks):
            checks.append(continuity(evidence))
        if all(check.met for check in checks):
            checks.append(evidence.repeated(movement_run(evidence)))
        return Hypotheses(tuple(checks))

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The distance along a rerun against both bounds."""
        again = movement_run(evidence)
        assert again is not None
        count = evidence.system.problem.num_train
        gram = evidence.system.tangent(evidence.start).gram()
        gains, _, _ = (np.asarray(a) for a in gain(evidence.flow, evidence.system, gram, jnp.zeros(())))
        rates = np.maximum(gains, 0.0) / count
        times = again.data.time.to_numpy()
        residual, drive = again.data.movement_residual.to_numpy(), again.data.movement_drive.to_numpy()
        movement = again.data.movement_gain.to_numpy()
        linear = np.exp(-np.outer(times, rates)) * residual[0]
        distance = np.linalg.norm(residual - linear, axis=1)
        size = np.linalg.norm(residual, axis=1)
        slope = np.sum(residual * (drive + count * rates * residual), axis=1) / np.maximum(
            count * np.sum(residual**2, axis=1), np.finfo(float).tiny
        )
        bounds = {
            _BY_KERNEL: movement_bound(times, movement / count, size, slope, rates.min()),
            _BY_MODE: mode_bound(times, drive / count, rates),
        }
        tolerance, error_bound = _errors(evidence, again, size, rates.min())
        trivial = size + np.linalg.norm(linear, axis=1)
        places = [f"at t = {time:.4g}" for time in times]
        claims = []
        constants = {
            "N": float(count),
            "smallest rate b_0/N": float(rates.min()),
            "largest ||B_t - B_0||/||B_0||": float(movement.max() / max(np.max(gains), np.finfo(float).tiny)),
            "largest ||f_t - f^lin_t||/||f_0 - y||": float(distance.max() / size[0]),
        }
        for name, integral in bounds.items():
            # Beyond ||r|| + ||r^lin|| a bound says nothing that the triangle inequality does not.
            telling = np.flatnonzero((integral.low < trivial) & (times > 0))
            surely = telling[distance[telling] > error_bound[telling]]
            if len(surely):
                ratio = distance[surely] / integral.value[surely]
                constants[f"largest distance over its bound {name}"] = float(ratio.max())
            constants[f"times at which the bound {name} says something"] = float(len(telling))
            if len(telling):
                claims.append(_claim(name, telling, distance, integral, tolerance, error_bound, trivial, places))
        later, high = slice(1, None), bounds[_BY_MODE].high
        curves = (Curves(times[later], "flow time", "||f - f^lin||", distance[later], upper=high[later]),)
        return Conclusion(tuple(claims), constants, curves)


def _claim(
    name: str,
    at: np.ndarray,
    distance: np.ndarray,
    integral: "Integral",
    tolerance: np.ndarray,
    error_bound: np.ndarray,
    trivial: np.ndarray,
    places: list[str],
) -> Claim:
    """The observed distance against its bound at some of the times."""
    bound, error = integral.value[at], np.minimum(integral.error, integral.high - integral.low)[at]
    # The rectangles bound what is monotone between the times; where the rule cannot tell its error, neither can they.
    at_worst = np.maximum(integral.high - integral.value, integral.error)[at]
    resolution = np.maximum(_RESIDUAL_RESOLUTION * trivial[at], _BOUND_RESOLUTION * bound)
    return worst_claim(
        f"||f - f^lin|| is within the bound {name}",
        distance[at],
        bound,
        bound - distance[at],
        tolerance[at] + error,
        error_bound[at] + at_worst,
        resolution,
        [places[i] for i in at],
    )


def _errors(evidence: Evidence, again: Trajectory, size: np.ndarray, slowest: float) -> tuple[np.ndarray, np.ndarray]:
    """The error of the rerun's outputs at the measured times: as it differs from the replicate, and as its solver promises it.

    A step errs by at most rtol ||r|| + atol sqrt(N) (docs/theory.md, The error norm in function space), and from then on that
    decays as the slowest mode does.
    """
    settings, system = again.settings, evidence.system
    times = again.data.time.to_numpy()
    # The losses do not see in which direction the outputs err; at the end the outputs themselves are compared.
    ends = [np.asarray(system.outputs(w)) for w in (system.weights(again.model), evidence.replicated_end)]
    relative = min(float(np.linalg.norm(ends[0] - ends[1])) / max(size[-1], np.finfo(float).tiny), 1.0)
    # ||r|| is sqrt(2 N L), so that its relative error is half of that of the loss.
    between = evidence.between[np.minimum(np.searchsorted(evidence.times, times), len(evidence.times) - 1)] / 2
    rounding = 10 * _EPSILON * (size[0] + float(jnp.linalg.norm(system.problem.y_train)))
    measured_error = np.maximum(np.maximum(between, relative), settings["rtol"]) * size
    measured_error[0] = 0.0
    steps = max(again.stats["num_accepted_steps"], 1)
    carried = np.zeros(len(size))
    largest = size[0]
    for i in range(1, len(size)):
        # An error is made at the residual of the start of its interval and decays until the end of the next.
        carried[i] = largest
        largest = max(largest * np.exp(-slowest * (times[i] - times[i - 1])), size[i])
    per_step = settings["rtol"] * carried + settings["atol"] * np.sqrt(system.problem.num_train)
    promised = steps * per_step + rounding
    measured_error = measured_error + rounding
    return np.minimum(measured_error, promised), np.maximum(measured_error, promised)
