"""How far a run leaves the linearised model's, bounded by how far its kernel moves; and the run that measures the movement."""

import dataclasses
import weakref
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError
from ..flows import AbstractFlow, GaussNewtonFlow, GradientFlow, SpectralFlow
from ..geometry import Snapshot, System
from ..geometry.damping import Constant, SmallestEigenvalue
from ..geometry.directions import Cholesky, TruncatedEigh, kept_modes, truncated_inverse
from ..losses import ScaledIdentity, SquaredLoss
from ..metrics import AbstractMetric, Variable
from ..simulate import Trajectory
from ._base import AbstractTheorem, Conclusion, Hypotheses
from ._certificate import Curves
from ._check import Check
from ._claim import Claim, worst_claim
from ._evidence import Evidence

_SOURCE = "docs/theorems/linearised_distance.md"
# The run that measures is looser than the one it measures, as `Evidence.second_run` is.
_LOOSER = 4.0
_SAFETY = 2.0
_NUM_TIMES = 40
_FIRST_TIME = 1e-3  # of the end, where the record holds no time between
# What the distance must be known to: a hundredth of ||r|| + ||r^lin||, or a tenth of the bound.
_RESIDUAL_RESOLUTION = 0.01
_BOUND_RESOLUTION = 0.1
_BY_KERNEL, _BY_MODE = "by the kernel's movement", "mode by mode"
_EPSILON = float(np.finfo(float).eps)


class GainMovement(AbstractMetric):
    """How far the gain B_t of f' = -(1/N) B_t (f - y) is from B_0, and what the residual sees of it (squared loss).

    With A_0 = Q diag(lam) Q^T and r = f - y: `movement_gain` is ||B_t - B_0|| in the operator norm, `movement_residual`
    is Q^T r, `movement_drive` is Q^T (B_t - B_0) r. It can be handed to any run of the flow.
    """

    flow: AbstractFlow

    def variables(self, system: System) -> tuple[Variable, ...]:
        """Three quantities, two of them vectors over the modes of A_0; **raises** `ConfigError` where no gain is known."""
        if not has_gain(self.flow, system):
            raise ConfigError(f"no gain B with f' = -(1/N) B (f - y) is known for {self.flow!r} with {system.loss!r}.")
        unit = "N/flow time"
        return (
            Variable("movement_gain", "operator norm of the change of the gain", unit, _SOURCE),
            Variable("movement_residual", "residual in the modes of A_0", "outputs", _SOURCE, ("kernel_mode",)),
            Variable("movement_drive", "(B_t - B_0) r in those modes", f"outputs {unit}", _SOURCE, ("kernel_mode",)),
        )

    def prepare(self, start: Snapshot) -> PyTree:
        """Q and B_0, (NC, NC) each."""
        _, vectors, matrix = gain(self.flow, start.system, start.gram, start.time)
        return vectors, matrix

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """One Gram matrix and, for flows that solve, its eigendecomposition; the eigenvalues of a difference."""
        vectors, start = memory
        system = snapshot.system
        residual = (snapshot.train_outputs - system.problem.y_train).reshape(-1)
        if isinstance(self.flow, GradientFlow):
            matrix = self.flow.effective_mobility(system) * snapshot.gram
        else:
            matrix = gain(self.flow, system, snapshot.gram, snapshot.time)[2]
        change = matrix - start
        # At the start itself two compilations of one matrix may round differently.
        change = jnp.where(snapshot.time > 0, change, 0.0)
        return {
            "movement_gain": jnp.max(jnp.abs(jnp.linalg.eigvalsh(change))),
            "movement_residual": vectors.T @ residual,
            "movement_drive": vectors.T @ (change @ residual),
        }


class InterpolationMismatch(AbstractMetric):
    """How far the test outputs are from what the first kernel makes of the training outputs, and how fast they leave it.

    With S_0 = K_0(x, X) A_0^-1: `interpolation_gap` is ||f_t(x) - f_0(x) - S_0 (f_t - f_0)|| over the test inputs x,
    `interpolation_mismatch` is ||f'_t(x) - S_0 f'_t||, `interpolation_speed` is ||f'_t||, `interpolation_movement` is
    ||f_t(x) - f_0(x)||. Derived in docs/theorems/kernel_limit.md.

    **Attributes:** `operator`: S_0, (nC, NC), from `interpolation_operator`.
    """

    operator: Float[Array, "test_rows rows"]

    def variables(self, system: System) -> tuple[Variable, ...]:
        """Four numbers; **raises** `ConfigError` without test inputs."""
        if system.problem.x_test is None:
            raise ConfigError("interpolation_gap compares test outputs; give the problem x_test and y_test.")
        source, speed = "docs/theorems/kernel_limit.md", "outputs/flow time"
        return (
            Variable("interpolation_gap", "distance of the test outputs to the kernel's", "outputs", source),
            Variable("interpolation_mismatch", "||f'(x) - S_0 f'|| on test inputs", speed, source),
            Variable("interpolation_speed", "||f'|| on training inputs", speed, source),
            Variable("interpolation_movement", "change of the test outputs", "outputs", source),
        )

    def prepare(self, start: Snapshot) -> PyTree:
        """f_0 on training and test inputs."""
        return start.train_outputs, start.test_outputs

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        """One velocity and two J products."""
        train, test = memory
        system, velocity = snapshot.system, snapshot.velocity
        speed = snapshot.tangent.jvp(velocity).reshape(-1)
        test_speed = system.tangent(snapshot.weights, system.problem.x_test).jvp(velocity).reshape(-1)
        change = (snapshot.train_outputs - train).reshape(-1)
        test_change = (snapshot.test_outputs - test).reshape(-1)
        return {
            "interpolation_gap": jnp.linalg.norm(test_change - self.operator @ change),
            "interpolation_mismatch": jnp.linalg.norm(test_speed - self.operator @ speed),
            "interpolation_speed": jnp.linalg.norm(speed),
            "interpolation_movement": jnp.linalg.norm(test_change),
        }


def interpolation_operator(system: System, weights: PyTree) -> Float[Array, "test_rows rows"]:
    """S = K(x, X) A^-1, (nC, NC): what the kernel at `weights` makes of a change of the training outputs on the test inputs."""
    tangent = system.tangent(weights)
    cross = system.tangent(weights, system.problem.x_test).cross_gram(tangent)
    return jnp.linalg.solve(tangent.gram(), cross.T).T


_runs: weakref.WeakKeyDictionary[Evidence, Trajectory | None] = weakref.WeakKeyDictionary()


def movement_run(evidence: Evidence) -> Trajectory | None:
    """The run again at 4 times its tolerance and to its end, with both metrics above where they are defined, at
    `measured_times`; None where it fails or has no length. Done once for each `evidence`, so that two theorems share it."""
    if evidence not in _runs:
        _runs[evidence] = _movement_run(evidence)
    return _runs[evidence]


def _movement_run(evidence: Evidence) -> Trajectory | None:
    if not evidence.is_continuous or evidence.times[-1] <= 0:
        return None
    system = evidence.system
    metrics: list[AbstractMetric] = []
    if has_gain(evidence.flow, system):
        metrics.append(GainMovement(evidence.flow))
    if system.problem.x_test is not None:
        metrics.append(InterpolationMismatch(interpolation_operator(system, evidence.start)))
    return evidence.repeat(measured_times(evidence), tuple(metrics))


def measured_times(evidence: Evidence) -> np.ndarray:
    """The 40 times at which `movement_run` measures: up to 40 saved times spread over the record, first and last among them,
    and where there are fewer, times between them that halve the widest gaps in the logarithm of time."""
    count = len(evidence.times)
    chosen = np.unique(np.round(np.linspace(0, count - 1, min(count, _NUM_TIMES))).astype(int))
    times = list(evidence.times[chosen])
    if len(times) == 2:
        times.insert(1, _FIRST_TIME * times[1])
    # Always as many: then runs of one problem share a compiled program.
    while len(times) < _NUM_TIMES:
        widest = 1 + int(np.argmax(np.diff(np.log(times[1:]))))
        times.insert(widest + 1, float(np.sqrt(times[widest] * times[widest + 1])))
    return np.asarray(times)


def has_gain(flow: AbstractFlow, system: System) -> bool:
    """Whether f' = -(1/N) B (f - y) with a B that `gain` knows: squared loss, and gradient, spectral or Gauss-Newton flow whose
    direction is solved for exactly."""
    if not isinstance(system.loss, SquaredLoss):
        return False
    if isinstance(flow, GaussNewtonFlow):
        targets = system.problem.y_train
        factor = flow.metric.factor(system.loss, targets, targets)
        return isinstance(factor, ScaledIdentity) and isinstance(flow.solver, TruncatedEigh | Cholesky)
    return isinstance(flow, GradientFlow | SpectralFlow)


def gain(
    flow: AbstractFlow, system: System, gram: Float[Array, "rows rows"], time: Float[Array, ""]
) -> tuple[Float[Array, " rows"], Float[Array, "rows rows"], Float[Array, "rows rows"]]:
    """b, Q and B = Q diag(b) Q^T = beta(A): the gain of f' = -(1/N) B (f - y), for A = Q diag(lam) Q^T.

    beta(lam) = m lam for gradient flow, lam (lam + eps)^-s for spectral flow, lam/(h lam + eps) for Gauss-Newton flow with
    H = h I; 0 on modes that the flow leaves out.
    """
    eigenvalues, vectors = jnp.linalg.eigh(gram)
    eigenvalues_or_zero = jnp.maximum(eigenvalues, 0.0)
    smallest = eigenvalues_or_zero[0]
    if isinstance(flow, GradientFlow):
        mobility = flow.effective_mobility(system)
        return mobility * eigenvalues, vectors, mobility * gram
    if isinstance(flow, SpectralFlow):
        shift = flow.damping(time, smallest)
        kept = kept_modes(eigenvalues, shift)
        shifted = jnp.where(kept, eigenvalues_or_zero + shift, 1.0)
        gains = jnp.where(kept, eigenvalues_or_zero * shifted**-flow.power, 0.0)
    else:
        assert isinstance(flow, GaussNewtonFlow)
        targets = system.problem.y_train
        factor = flow.metric.factor(system.loss, targets, targets)
        assert isinstance(factor, ScaledIdentity)
        gains = eigenvalues_or_zero * truncated_inverse(factor.scale * eigenvalues, flow.damping(time, smallest))
    return gains, vectors, (vectors * gains[None, :]) @ vectors.T


def _keeps_time_out(flow: AbstractFlow) -> bool:
    """Whether the gain is a function of the Gram matrix alone, so that the linearised run has a closed form."""
    return isinstance(flow, GradientFlow) or isinstance(getattr(flow, "damping", None), Constant | SmallestEigenvalue)


@dataclasses.dataclass(frozen=True)
class LinearisedDistance(AbstractTheorem):
    """Theorem D of docs/theorems/linearised_distance.md; the linearised run: Lee et al. 2019 (arXiv 1902.06720), Section 2.2.

    Squared loss, f' = -(1/N) B_t (f - y), and f^lin the outputs of the model linearised at the start, under the same flow. Then

        ||f_t - f^lin_t|| <= (1/N) int_0^t exp(-b_0 (t - s)/N) ||B_s - B_0|| ||f_s - y|| ds

    with b_0 the smallest eigenvalue of B_0; and the same in each mode of A_0, with the movement that the residual sees.
    """

    name: ClassVar[str] = "linearised distance"
    statement: ClassVar[str] = "||f - f^lin|| <= (1/N) int exp(-b_0 (t - s)/N) ||B_s - B_0|| ||f_s - y|| ds"
    reference: ClassVar[str] = f"{_SOURCE}, Theorem D; Lee et al. 2019 (arXiv 1902.06720), Section 2.2"
    own_runs: ClassVar[bool] = True

    def hypotheses(self, evidence: Evidence) -> Hypotheses:
        """Squared loss, a flow with a gain that is a function of the Gram matrix; no assumption on the spectrum."""
        flow = evidence.flow
        checks = [
            Check.fact("the run is a flow in continuous time", evidence.is_continuous),
            Check.fact(
                "the loss is the squared loss",
                isinstance(evidence.system.loss, SquaredLoss),
                type(evidence.system.loss).__name__,
            ),
            Check.fact(
                "the flow is gradient, spectral, or Gauss-Newton with H = h I and a direct solver",
                has_gain(flow, evidence.system) or not isinstance(evidence.system.loss, SquaredLoss),
            ),
            Check.fact("the damping does not depend on time", _keeps_time_out(flow)),
        ]
        if all(check.met for check in checks):
            again = movement_run(evidence)
            checks.append(Check.fact("the run can be repeated at 4 times its tolerance", again is not None))
        return Hypotheses(tuple(checks))

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The distance at the end as recorded, and along the second run, against both bounds."""
        again = movement_run(evidence)
        assert again is not None
        count = evidence.system.problem.num_train
        gram = evidence.system.tangent(evidence.start).gram()
        gains, vectors, _ = (np.asarray(a) for a in gain(evidence.flow, evidence.system, gram, jnp.zeros(())))
        rates = np.maximum(gains, 0.0) / count
        times = again.data.time.to_numpy()
        residual, drive = again.data.movement_residual.to_numpy(), again.data.movement_drive.to_numpy()
        movement = again.data.movement_gain.to_numpy()
        linear = np.exp(-np.outer(times, rates)) * residual[0]
        distance = np.linalg.norm(residual - linear, axis=1)
        # The end is the record's own.
        outputs, targets = evidence.system.outputs(evidence.end), evidence.system.problem.y_train
        last = np.asarray(outputs - targets).reshape(-1)
        distance[-1] = np.linalg.norm(last - vectors @ (np.exp(-rates * times[-1]) * (vectors.T @ _first(evidence))))
        size = residual_norms(evidence, again)
        slope = np.sum(residual * (drive + count * rates * residual), axis=1) / np.maximum(
            count * np.sum(residual**2, axis=1), np.finfo(float).tiny
        )
        bounds = {
            _BY_KERNEL: movement_bound(times, movement / count, size, slope, rates.min()),
            _BY_MODE: mode_bound(times, drive / count, rates),
        }
        tolerance, error_bound = _errors(evidence, again, size, rates.min(), last)
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
    at_worst = np.maximum(integral.high[at] - bound, error)
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


def _first(evidence: Evidence) -> np.ndarray:
    """f_0 - y, (NC,)."""
    outputs = evidence.system.outputs(evidence.start)
    return np.asarray(outputs - evidence.system.problem.y_train).reshape(-1)


def residual_norms(evidence: Evidence, again: Trajectory) -> np.ndarray:
    """||f_t - y|| at the measured times: where the record has the time from its loss, sqrt(2 N L), elsewhere from `again`."""
    count, times = evidence.system.problem.num_train, again.data.time.to_numpy()
    size = np.linalg.norm(again.data.movement_residual.to_numpy(), axis=1)
    loss = evidence.trajectory.data["train_loss"].to_numpy()
    recorded, at, _ = np.intersect1d(evidence.times, times, return_indices=True)
    size[np.searchsorted(times, recorded)] = np.sqrt(2 * count * loss[at])
    return size


def _errors(
    evidence: Evidence, again: Trajectory, size: np.ndarray, slowest: float, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The error of the outputs at the measured times: as two runs differ, and as the solver promises it.

    A step errs by at most rtol times the residual (docs/theory.md, The error norm in function space), and from then on an error
    decays as the slowest mode does.
    """
    settings, system = evidence.trajectory.settings, evidence.system
    second = np.linalg.norm(again.data.movement_residual.to_numpy(), axis=1)
    ends = np.asarray(system.outputs(system.weights(again.model)) - system.problem.y_train).reshape(-1)
    between_ends = np.linalg.norm(ends - last)
    # The losses do not see in which direction the outputs err; at the end the outputs themselves are compared.
    relative = between_ends / max(size[-1], np.finfo(float).tiny)
    looser = np.full(len(size), _LOOSER * settings["rtol"])
    looser[-1] = settings["rtol"]
    rounding = 10 * _EPSILON * (size[0] + float(jnp.linalg.norm(system.problem.y_train)))
    measured_error = np.maximum(
        _SAFETY * np.maximum(np.abs(second - size), np.minimum(relative, 1.0) * size), looser * size
    )
    measured_error[-1] = max(_SAFETY * between_ends, settings["rtol"] * size[-1])
    measured_error[0] = 0.0
    steps = max(evidence.trajectory.stats["num_accepted_steps"], 1)
    times, carried = again.data.time.to_numpy(), np.zeros(len(size))
    largest = size[0]
    for i in range(1, len(size)):
        # An error is made at the residual of the start of its interval and decays until the end of the next.
        carried[i] = largest
        largest = max(largest * np.exp(-slowest * (times[i] - times[i - 1])), size[i])
    promised = looser * steps * carried + rounding
    # A difference beyond what the solver promises is no integration error: the record is not this run's.
    return np.minimum(measured_error + rounding, promised), promised


@dataclasses.dataclass(frozen=True)
class Integral:
    """An integral of a function that is known at some times, at each of them: (n,).

    **Attributes:** `low`, `high`: bounds that hold if the function is monotone between the times; `value`; `error` of it, an
    estimate.
    """

    low: np.ndarray
    high: np.ndarray
    value: np.ndarray
    error: np.ndarray


def movement_bound(
    times: np.ndarray, movement: np.ndarray, size: np.ndarray, slope: np.ndarray, rate: float
) -> Integral:
    """int_0^t exp(-rate (t - s)) movement(s) size(s) ds at each time.

    Its `low` and `high` take movement(s), and the rate at which size(s) decays, for monotone between the times.

    **Arguments:** `times` (n,), the first 0; `movement` (n,): ||B_s - B_0||/N; `size` (n,): ||f_s - y||, positive; `slope`
    (n,): -d/ds log size(s); `rate`: b_0/N.
    """
    low, high = np.zeros(len(times)), np.zeros(len(times))
    for i in range(len(times) - 1):
        step, ends = times[i + 1] - times[i], [i, i + 1]
        slow, fast = slope[ends].min(), slope[ends].max()
        # The size lies above and below exponentials through either end.
        upper = min(size[i] * _overlap(rate, slow, step), size[i + 1] * step * _mean_exponential((rate - fast) * step))
        lower = max(size[i] * _overlap(rate, fast, step), size[i + 1] * step * _mean_exponential((rate - slow) * step))
        decay = np.exp(-rate * step)
        high[i + 1] = decay * high[i] + movement[ends].max() * upper
        low[i + 1] = decay * low[i] + movement[ends].min() * min(lower, upper)
    value, error = _interpolated(times, (movement * size)[:, None], np.asarray([rate]))
    return Integral(low, high, value, error)


def mode_bound(times: np.ndarray, drive: np.ndarray, rates: np.ndarray) -> Integral:
    """|| (int_0^t exp(-rate_j (t - s)) |drive_j(s)| ds)_j || at each time.

    Its `low` and `high` take every drive_j for monotone between the times.

    **Arguments:** `times` (n,), the first 0; `drive` (n, k): q_j . (B_s - B_0) r_s / N; `rates` (k,): b_j/N.
    """
    size = np.abs(drive)
    low, high = np.zeros(drive.shape), np.zeros(drive.shape)
    for i in range(len(times) - 1):
        step = times[i + 1] - times[i]
        decay, weight = np.exp(-rates * step), step * _mean_exponential(rates * step)
        same_sign = drive[i] * drive[i + 1] > 0
        least = np.where(same_sign, np.minimum(size[i], size[i + 1]), 0.0)
        high[i + 1] = decay * high[i] + weight * np.maximum(size[i], size[i + 1])
        low[i + 1] = decay * low[i] + weight * least
    value, error = _interpolated(times, size, rates)
    return Integral(np.linalg.norm(low, axis=1), np.linalg.norm(high, axis=1), value, error)


def _interpolated(times: np.ndarray, size: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integrals' norm with size (n, k) interpolated between the times, and its error: twice what leaving out every
    second one changes.

    The rule is of second order: of that change a third would be the error of a smooth function at even times, and all
    of it where times grow by a factor and the longest interval is not split.
    """
    value = _quadrature(times, size, rates)
    error = np.full(len(times), np.inf)
    error[0] = 0.0
    for offset in (0, 1):
        kept = np.unique(np.concatenate([[0], np.arange(offset, len(times), 2)]))
        if len(kept) > 2:
            coarse = _quadrature(times[kept], size[kept], rates)
            error[kept[1:]] = _SAFETY * np.abs(coarse - value[kept])[1:]
    if len(times) > 2:
        error[1] = error[2]  # one interval, with nothing to leave out
    # Two values may agree by chance; at neighbours they hardly do.
    return value, np.maximum(error, np.maximum(np.append(error[1:], 0.0), np.append(0.0, error[:-1])))


def _quadrature(times: np.ndarray, size: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """|| (int_0^t exp(-rate_j (t - s)) size_j(s) ds)_j ||, (n,): size_j exponential between the times where it falls,
    linear where it rises."""
    total = np.zeros(size.shape)
    for i in range(len(times) - 1):
        step = times[i + 1] - times[i]
        x = rates * step
        whole = _mean_exponential(x)
        # int_0^1 u exp(-x (1 - u)) du, the weight of the interval's end; its series where the closed form loses digits.
        end = np.where(x > 1e-4, (1 - whole) / np.where(x > 1e-4, x, 1.0), 0.5 - x / 6)
        linear = size[i] * (whole - end) + size[i + 1] * end
        falls = (size[i] > size[i + 1]) & (size[i + 1] > 0)
        fall = np.log(np.where(falls, size[i], 1.0)) - np.log(np.where(falls, size[i + 1], 1.0))
        exponential = size[i] * np.exp(-np.minimum(x, fall)) * _mean_exponential(np.abs(x - fall))
        total[i + 1] = np.exp(-x) * total[i] + step * np.where(falls, exponential, linear)
    return np.linalg.norm(total, axis=1)


def _overlap(first: float, second: float, step: float) -> float:
    """int_0^step exp(-first (step - u)) exp(-second u) du."""
    return float(step * np.exp(-min(first, second) * step) * _mean_exponential(np.abs(first - second) * step))


def _mean_exponential(x: np.ndarray | float) -> np.ndarray:
    """(1 - exp(-x))/x, 1 at 0; infinite where that overflows."""
    x = np.asarray(x, dtype=float)
    with np.errstate(over="ignore"):
        return np.where(x != 0, -np.expm1(-x) / np.where(x != 0, x, 1.0), 1.0)
