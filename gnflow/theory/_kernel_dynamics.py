"""Models that are linear in their weights: the closed form of the outputs, on training and on test inputs."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._core import tree_norm, tree_subtract
from ..flows import AbstractGain
from ..geometry import System
from ..geometry.damping import AbstractDamping, Spectrum
from ._accuracy import EPSILON, LOSS_RESOLUTION, ROUNDING_OF_PROGRAMS, TINY
from ._base import AbstractTheorem, Conclusion, Hypotheses, in_stages
from ._claim import Check, Claim, Error, compare_along
from ._continuity import continuity
from ._evidence import Evidence
from ._hypotheses import ANY_GAIN, accurate_solves, continuous_time, is_linear, metric_scale, squared_loss
from ._rate_band import has_band

# The largest number of test inputs that are compared. Their kernel then costs as much as a Gram matrix.
_MOST_TEST_INPUTS = 500


@dataclasses.dataclass(frozen=True)
class KernelDynamics(AbstractTheorem):
    """Theorem K of docs/theorems/kernel_dynamics.md, exact facts 2 and 3 of docs/theory.md.

    For a model that is linear in its weights, with the squared loss and A = Q diag(lam) Q^T, f_t - y = Q exp(-rho(lam) t) Q^T
    (f_0 - y). rho(lam) is m lam/N for gradient flow, lam (lam + eps)^-s/N for the spectral family, lam/((c lam + eps) N) for
    Gauss-Newton flow with H = c I, and (1 + gamma) lam/(N + gamma lam) for the dual flow. On any other input f_t(x) = f_0(x) +
    K(x, X) A^+ (f_t - f_0). For gradient flow: Lee et al. 2019 (arXiv 1902.06720).
    """

    name: ClassVar[str] = "kernel dynamics"
    statement: ClassVar[str] = (
        "f_t - y = Q exp(-rho(lam) t) Q^T (f_0 - y) and f_t(x) = f_0(x) + K(x, X) A^+ (f_t - f_0)"
    )
    reference: ClassVar[str] = (
        "docs/theorems/kernel_dynamics.md, Theorem K; docs/theory.md, exact facts 2 and 3; Lee et al. 2019 (arXiv 1902.06720)"
    )

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """A known flow with the squared loss, a linear model, and constant damping."""
        has_gain = Check.fact(ANY_GAIN, evidence.gain is not None)
        yield continuous_time(evidence), has_gain, squared_loss(evidence)
        scale, known = metric_scale(evidence)
        linearity = _linearity(evidence)
        multiple = Check.fact("H = c I", scale is not None, rigorous=known)
        yield multiple, *accurate_solves(evidence), linearity, *((continuity(evidence),) if linearity.met else ())
        yield (evidence.repeated(),)
        if not evidence.law.damping.is_zero:
            yield (_constant_damping(evidence, evidence.law.damping),)

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """The loss at the measured times and the last outputs, against the closed form."""
        kernel = _Kernel.of(evidence)
        times, logs = evidence.times, evidence.log_excess
        norms = np.array([float(np.linalg.norm(kernel.residual(time))) for time in times])
        eigen = np.array([kernel.residual_error(time) for time in times])
        with np.errstate(divide="ignore", invalid="ignore"):
            relative_eigen = np.where(norms > 0, eigen / norms, np.inf)
        steps = _promised(evidence, kernel, norms)
        with np.errstate(divide="ignore"):
            expected = -2 * np.log(norms / norms[0])
        fallen, resolution = logs[0] - logs, LOSS_RESOLUTION * expected
        error = evidence.accuracy.loss_agreement(logs[0] - expected, steps, resolution) + 2 * relative_eigen
        claims = [
            compare_along("log L falls as the closed form's", times, fallen, "==", expected, error, resolution),
            _train_claim(evidence, kernel, float(norms[-1]), float(relative_eigen[-1]), float(steps[-1])),
        ]
        if evidence.system.problem.x_test is not None:
            claims.append(_test_claim(evidence, kernel))
        lam = kernel.eigenvalues
        constants = {
            "sigma_min": float(lam[0]),
            "sigma_max": float(lam[-1]),
            "error of the eigenvalues (NC eps sigma_max)": kernel.eigenvalue_error,
            "slowest rate of f - y": float(kernel.rates.min()),
            "fastest rate of f - y": float(kernel.rates.max()),
            "damping": kernel.law.damping,
            "largest relative error of the closed form from that of A": float(relative_eigen.max()),
        }
        closed = norms**2 / (2 * evidence.system.problem.num_train)
        return Conclusion(tuple(claims), constants, (evidence.loss_curve(closed, closed),))


@dataclasses.dataclass(frozen=True)
class _Law:
    """rho(lam) = lam k(c lam; eps)/N with the flow's gain k.

    **Attributes:**

    - `scale`: c of H = c I.
    - `damping_error`: the error of eps.
    """

    num_train: int
    gain: AbstractGain
    scale: float = 1.0
    damping: float = 0.0
    damping_error: float = 0.0

    def rates(self, lam: np.ndarray, change: float, cutoff: float) -> np.ndarray:
        """rho with eps + `change`. Modes that the flow does not keep, c lam + eps <= c cutoff, do not move."""
        damping = max(self.damping + change, 0.0)
        kept = np.ones(lam.shape, dtype=bool)
        if self.gain.is_truncated:
            kept = self.scale * lam + damping > self.scale * cutoff
        values = np.asarray(self.gain.value(jnp.asarray(self.scale * np.where(kept, lam, 1.0)), damping))
        return np.where(kept, lam * values, 0.0) / self.num_train


class _Kernel:
    """The closed form, from the Gram matrix and the outputs at the start.

    Errors: the computed A differs from that of the run by a matrix E of norm e = NC eps sigma_max at most. A function F of it
    changes by Q (D o E) Q^T to first order in E, with the divided differences D of F (Daleckii and Krein). For eigenvalues
    closer than e the divided difference is replaced by the range of F over the values that both may have.
    """

    def __init__(self, gram: np.ndarray, residual: np.ndarray, law: "_Law", eigenvalue_error: float | None = None):
        self.eigenvalues, self.eigenvectors = np.linalg.eigh(gram)
        self.law = law
        rounding = len(gram) * EPSILON * float(np.abs(self.eigenvalues).max())
        self.eigenvalue_error = rounding if eigenvalue_error is None else eigenvalue_error
        self.amplitudes = self.eigenvectors.T @ residual
        self.rates = self._rates(0.0)

    @classmethod
    def of(cls, evidence: Evidence) -> "_Kernel":
        """The kernel of a run at its start."""
        system = evidence.system
        scale, _ = metric_scale(evidence)
        assert scale is not None
        damping, damping_error = _recorded_damping(evidence)
        law = _Law(system.problem.num_train, evidence.law, scale, damping, damping_error)
        return cls(evidence.start_gram, evidence.outputs(evidence.start) - evidence.targets, law)

    def residual(self, time: float) -> np.ndarray:
        """f_t - y, (NC,)."""
        return self.eigenvectors @ (np.exp(-self.rates * time) * self.amplitudes)

    def residual_error(self, time: float) -> float:
        """The norm of the error of `residual` from the error of A."""
        differences = self._divided_differences(lambda lam, rates: np.exp(-rates * time))
        return self.eigenvalue_error * float(np.sqrt(np.max(differences**2 @ self.amplitudes**2)))

    def change_elsewhere(self, time: float, cross: np.ndarray) -> tuple[np.ndarray, float]:
        """K(x, X) A^+ (f_t - f_0), (nC,), and the norm of its error, with `cross` = K(x, X), (nC, NC).

        A^+ (f_t - f_0) = -Q (1 - exp(-rho t))/lam Q^T (f_0 - y), without the modes that do not move. As one function of lam it
        avoids the division of a difference of outputs by a small eigenvalue.
        """

        def gain(lam: np.ndarray, rates: np.ndarray) -> np.ndarray:
            moving = (lam > 0) & (rates > 0)
            return np.where(moving, -np.expm1(-rates * time) / np.where(moving, lam, 1.0), 0.0)

        coefficients = gain(self.eigenvalues, self.rates) * self.amplitudes
        modes = cross @ self.eigenvectors
        sizes = np.sum(modes**2, axis=0)
        differences = self._divided_differences(gain)
        error = self.eigenvalue_error * float(np.sqrt(sizes @ (differences**2 @ self.amplitudes**2)))
        rounding = len(self.eigenvalues) * EPSILON * float(np.linalg.norm(cross))
        return -modes @ coefficients, error + rounding * float(np.linalg.norm(coefficients))

    def _rates(self, shift: float) -> np.ndarray:
        """rho at lam + shift e, with eps at the other end of its range."""
        lam = np.maximum(self.eigenvalues + shift * self.eigenvalue_error, 0.0)
        return self.law.rates(lam, -shift * self.law.damping_error, self.eigenvalue_error)

    def _divided_differences(self, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Bounds (NC, NC) of |F(lam_i) - F(lam_j)| / |lam_i - lam_j|, for eigenvalues that are known up to e."""
        values = np.stack(
            [
                function(np.maximum(self.eigenvalues + shift * self.eigenvalue_error, 0.0), self._rates(shift))
                for shift in (-1.0, 0.0, 1.0)
            ]
        )
        high, low = values.max(axis=0), values.min(axis=0)
        rises = np.maximum(high[:, None], high[None, :]) - np.minimum(low[:, None], low[None, :])
        distances = np.abs(self.eigenvalues[:, None] - self.eigenvalues[None, :])
        error = max(self.eigenvalue_error, TINY)
        return rises / np.maximum(distances, error)


@eqx.filter_jit
def _test_kernel(system: System, weights, x):
    """K(x, X) and the squared Frobenius norm of the Jacobian on `x`."""
    tangent = system.tangent(weights, x)
    return tangent.cross_gram(system.tangent(weights)), jnp.trace(tangent.gram())


@eqx.filter_jit
def _nonlinearity(system: System, start, end, x):
    """||f_w - f_0 - J_0 (w - w_0)||, ||f_w - f_0||, and the rounding of the first norm, on the inputs `x`."""
    displacement = tree_subtract(end, start)
    tangent = system.tangent(start, x)
    first, last, linear = system.outputs(start, x), system.outputs(end, x), tangent.jvp(displacement)
    # Sums of products of J's entries and weights: ||J||_F (||w_0|| + ||w||) bounds the sizes of their terms.
    terms = jnp.sqrt(jnp.trace(tangent.gram())) * (tree_norm(start) + tree_norm(end))
    rounding = ROUNDING_OF_PROGRAMS * (terms + jnp.linalg.norm(first) + jnp.linalg.norm(last))
    return jnp.linalg.norm(last - first - linear), jnp.linalg.norm(last - first), rounding


def _linearity(evidence: Evidence) -> Check:
    """The last outputs against f_0 + J_0 (w_T - w_0), on the training and the test inputs."""
    system = evidence.system
    by_structure = is_linear(system, evidence.start)
    inputs = [system.problem.x_train]
    if system.problem.x_test is not None:
        inputs.append(system.problem.x_test[:_MOST_TEST_INPUTS])
    worst, allowed = 0.0, 0.0
    for x in inputs:
        distance, moved, rounding = (float(n) for n in _nonlinearity(system, evidence.start, evidence.end, x))
        moved = max(moved, TINY)
        if distance / moved - rounding / moved > worst - allowed or allowed == 0:
            worst, allowed = distance / moved, rounding / moved
    known = "linear by its structure" if by_structure else "measured at the end of the run only"
    remark = f"{type(evidence.trajectory.initial_model).__name__}, {known}"
    name = "the model is linear: ||f_T - f_0 - J_0 (w_T - w_0)||/||f_T - f_0|| is rounding"
    return Check(name, worst, "<=", allowed, rigorous=by_structure, remark=remark)


def _recorded_damping(evidence: Evidence) -> tuple[float, float]:
    """eps at the start, and its largest change at a measured time."""
    if evidence.law.damping.is_zero:
        return 0.0, 0.0
    damping = evidence.band.damping
    return float(damping[0]), float(np.max(np.abs(damping - damping[0])))


def _constant_damping(evidence: Evidence, rule: AbstractDamping) -> Check:
    """eps does not change, except by rounding (if a rule reads it from the spectrum of a matrix that does not move)."""
    name = "eps is constant along the run"
    if not has_band(evidence.flow, evidence.system):
        return Check.unknown(name, "eps is measured of flows alone whose gain says that it increases")
    damping, change = _recorded_damping(evidence)
    # The largest eigenvalue is at most the trace; every eigenvalue is known to its rounding.
    largest = len(evidence.start_gram) * float(np.trace(evidence.start_gram))
    start, size = jnp.zeros(()), len(evidence.start_gram)
    greatest, least = (Spectrum.of(jnp.full(size, value)) for value in (largest, 0.0))
    sensitive = float(rule(start, greatest) - rule(start, least))
    rounding = ROUNDING_OF_PROGRAMS * (damping + abs(sensitive))
    remark = f"{type(rule).__name__}: largest change at the measured times"
    return Check(name, change, "<=", rounding, rigorous=not rule.depends_on_time, remark=remark)


def _promised(evidence: Evidence, kernel: _Kernel, norms: np.ndarray) -> np.ndarray:
    """The relative error of ||f - y|| at each time if every step errs as the solver promises and every solve as
    measured, (k,).

    An error made at s shrinks at least at the slowest rate, the residual may shrink faster: what was rtol ||f_s - y|| then is
    that times exp(-rho_min (t - s)) at t, and relative to ||f_t - y|| it may have grown. What atol, or a tolerance of the
    weights, lets through does not depend on s: relative to ||f_t - y|| `Accuracy.relative_steps` has it as large as it can be.
    """
    slowest, times, accuracy = float(kernel.rates.min()), evidence.times, evidence.accuracy
    grown = np.ones(len(times))
    with np.errstate(divide="ignore", invalid="ignore"):
        for k in range(1, len(times)):
            # Of a step between two measured times: the residual of the earlier one, the decay since the later one.
            left = norms[:k] * np.exp(-slowest * (times[k] - times[1 : k + 1]))
            grown[k] = max(1.0, float(np.max(left)) / norms[k]) if norms[k] > 0 else np.inf
    # By the solves f' is off by at most their residual times the fastest rate, relative to f - y, at every time.
    solves = accuracy.solve_residual * float(kernel.rates.max()) * times * grown
    return accuracy.accumulated(accuracy.relative_steps(norms) + accuracy.rtol * (grown - 1)) + solves


def _train_claim(evidence: Evidence, kernel: _Kernel, norm: float, eigen: float, promised: float) -> Claim:
    """The last residual against the closed form's, relative to its norm."""
    ends = evidence.outputs(evidence.flow_end), evidence.outputs(evidence.replicated_end)
    expected = evidence.targets + kernel.residual(float(evidence.times[-1]))
    name = "the last residual is the closed form's (relative distance)"
    other = Error.known(float(eigen + evidence.accuracy.rounding[-1]))
    return evidence.accuracy.last_outputs(name, ends, expected, norm, promised, other)


def _test_claim(evidence: Evidence, kernel: _Kernel) -> Claim:
    """The change of the test outputs against K(x, X) A^+ (f_T - f_0), relative to its norm."""
    system, accuracy = evidence.system, evidence.accuracy
    x = system.problem.x_test
    assert x is not None
    x = x[:_MOST_TEST_INPUTS]
    cross, squares = jax.device_get(_test_kernel(system, evidence.start, x))
    expected, eigen = kernel.change_elsewhere(float(evidence.times[-1]), np.asarray(cross))
    first, last, again = (evidence.outputs(w, x) for w in (evidence.start, evidence.flow_end, evidence.replicated_end))
    size = max(float(np.linalg.norm(expected)), TINY)
    rounding = ROUNDING_OF_PROGRAMS * float(np.linalg.norm(last) + np.linalg.norm(first))
    # No mode of the linear flow of the weights grows, so their errors at most add up.
    promised = accuracy.steps * accuracy.weight_step * float(squares) ** 0.5 / size
    name = f"the last outputs on {len(x)} test inputs are f_0(x) + K(x, X) A^+ (f_T - f_0) (relative distance)"
    other = Error.known((eigen + rounding) / size)
    return accuracy.last_outputs(name, (last - first, again - first), expected, size, promised, other)
