"""Gradient descent and Gauss-Newton converge to their flow at first order in the step size, with the constant."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._core import ConfigError, require_integer, require_number, tree_add_scaled, tree_scale
from ..flows import AbstractFlow
from ..geometry import Decomposition, SolveDiagnostics, System
from ..problems import AbstractProblem
from ..simulate import Trajectory, iterate, simulate_once
from ._accuracy import LOOSER, SAFETY
from ._base import AbstractTheorem, Conclusion, Hypotheses, in_stages
from ._claim import Check, Claim, Error, compare
from ._curves import Curves
from ._evidence import Evidence
from ._hypotheses import continuous_time, has_length, smooth_velocity

# log(1 + D) = D - D^2/2 + D^3/3 - ... is truncated after D times this power of the difference operator D.
_HIGHEST_ORDER = 3
# The ratio of the first step size to the largest stable one, 2 / (fastest rate).
_PART_OF_STABLE = 0.5
# The least number of steps of the first size, which resolve a run of a few time scales, also if larger steps are stable.
_FEWEST_STEPS = 16
# The ratio of the finest step to the step of the modified equation from which the constant is computed.
_FINER = 4
_ORDER_RESOLUTION, _ERROR_RESOLUTION = 0.1, 0.02


@dataclasses.dataclass(frozen=True)
class Discretisation(AbstractTheorem):
    """Theorem D1 to D3 of docs/theorems/discretisation.md, fact 8 of docs/theory.md.

    w_h(T), after T/h explicit Euler steps of length h (gradient descent, Gauss-Newton), differs from the flow's w(T) by
    h e_1(T) + O(h^2), with e_1' = F'(w) e_1 - w''/2, e_1(0) = 0. The certificate runs the steps at h, h/2, h/4, ... and
    the flow at a tight tolerance. What the two finest errors must be it takes from the modified equation, a flow that
    the Euler steps follow up to O(h^4), integrated by another method.

    Sources: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, Theorem II.8.1; Hairer, Lubich, Wanner,
    Geometric Numerical Integration, Section IX.1.

    **Arguments:**

    - `halvings`: how often the step size is halved, at least 2.
    - `step_size`: the largest step size, in flow time. None uses half of the largest stable one (at most T/16), which needs a
      flow with a linearisation.
    - `end_time`: T. None uses the end of the run or, if that takes too many steps, the time at which the run's loss has fallen
      by a factor e, but in any case not more than `max_steps` can reach.
    - `max_steps`: the largest number of Euler steps of the finest size.
    - `rtol`: the tolerance of the reference integrations (Dopri8, errors of the weights).
    - `smooth`: whether the caller promises that a model or flow that gnflow does not know is smooth.

    **Raises:** `ConfigError` for other numbers.
    """

    name: ClassVar[str] = "discretisation"
    statement: ClassVar[str] = "||w_h(T) - w(T)|| = C h + O(h^2) for explicit Euler steps of size h"
    reference: ClassVar[str] = (
        "docs/theorems/discretisation.md, Theorem D1 to D3; Hairer, Norsett, Wanner I, Theorem II.8.1"
    )
    own_runs: ClassVar[bool] = True
    allows_decay: ClassVar[bool] = True
    about: ClassVar[Literal["run", "start", "parts"]] = "parts"

    halvings: int = 5
    step_size: float | None = None
    end_time: float | None = None
    max_steps: int = 20_000
    rtol: float = 1e-9
    smooth: bool | None = None

    def __post_init__(self):
        require_integer(ConfigError, "halvings", self.halvings, least=2, remedy="With fewer no trend can be seen.")
        require_integer(ConfigError, "max_steps", self.max_steps, least=_FEWEST_STEPS * 2**self.halvings)
        for name in ("step_size", "end_time"):
            if getattr(self, name) is not None:
                require_number(ConfigError, name, getattr(self, name), above=0.0, remedy="Or None.")
        require_number(ConfigError, "rtol", self.rtol, above=0.0, below=1.0)

    @in_stages
    def hypotheses(self, evidence: Evidence):
        """A flow in continuous time, a smooth velocity, steps within the limit of stability."""
        run = evidence.trajectory
        smooth = smooth_velocity(run.problem, run.initial_model, run.flow, self.smooth)
        yield continuous_time(evidence), has_length(evidence), smooth, *_switches(evidence)
        rate = _fastest_rate(evidence)
        if rate is None and self.step_size is None:
            name = f"the largest stable step of {type(evidence.flow).__name__} is known"
            yield (Check.unknown(name, "it has no linearisation: pass step_size"),)
        steps = self._steps(evidence, rate)
        remark = "2 / (fastest rate of the linearised flow), at the run's start and end"
        name = "the largest step is stable"
        stable = Check(name, steps.largest, "<", 2 / rate, rigorous=False, remark=remark) if rate else {}
        constants = {
            "end time T": steps.end,
            "end time of the run": float(evidence.recorded_times[-1]),
            "largest step size": steps.largest,
            "finest step size": steps.sizes[-1],
        }
        yield stable, constants | ({} if rate is None else {"fastest rate": rate})

    def conclusion(self, evidence: Evidence, hypotheses: Hypotheses) -> Conclusion:
        """Order, constant and size of the finest error."""
        steps = self._steps(evidence, hypotheses.constants.get("fastest rate"))
        runs = _Runs(evidence, steps.end, self.rtol)
        flow = runs.modified(0.0, 0)
        flow_error = SAFETY * _norm(flow - runs.modified(0.0, 0, LOOSER * self.rtol)) + 1e-15 * _norm(flow)
        errors = [runs.euler(steps.first * 2**k) - flow for k in range(self.halvings + 1)]
        sizes, finest = steps.sizes, steps.sizes[-1]
        coarse, fine = (_predict(runs, flow, flow_error, h) for h in sizes[-2:])
        delta = finest / _FINER
        slope = (runs.modified(delta, 1) - runs.modified(-delta, 1)) / (2 * delta)  # e_1 + O(delta^2)
        norms = np.array([_norm(error) for error in errors])
        with np.errstate(divide="ignore", invalid="ignore"):
            local = np.log2(norms[:-1] / norms[1:])
        richardson = 2 * errors[-1] / finest - errors[-2] / sizes[-2]
        # Vectors are compared, not lengths.
        off, error = _norm(errors[-1] / finest - fine.vector) / fine.length, fine.error * (1 / fine.length)
        name = "error of the finest steps = that of the modified equation, relative"
        claims = (
            _order(float(local[-1]), coarse, fine),
            compare(name, off, "==", 0.0, error, _ERROR_RESOLUTION, f"at h = {finest:.3g}"),
            _constant(richardson, slope, flow_error / delta, coarse, fine),
        )
        constants = {
            "C = ||e_1||, from the modified equation": _norm(slope),
            "C by Richardson extrapolation of the steps": _norm(richardson),
            "largest ||w_h(T) - w(T)||/h": float(np.max(norms / sizes)),
            "||w_h(T) - w(T)|| at the finest step": norms[-1],
            "error of the reference w(T)": flow_error,
            "||w(T) - w(0)||": _norm(flow - runs.start),
            **{f"order from {a:.3g} to {b:.3g}": p for a, b, p in zip(sizes, sizes[1:], local, strict=False)},
        }
        constants = {name: float(value) for name, value in constants.items()}
        widest = np.max(norms / sizes) * sizes
        curves = Curves(sizes, "step size [flow time]", "||w_h(T) - w(T)||", norms, upper=widest)
        return Conclusion(claims, constants, (curves,))

    def _steps(self, evidence: Evidence, rate: float | None) -> "_Steps":
        largest = self.step_size
        if largest is None:
            assert rate is not None
            largest = 2 * _PART_OF_STABLE / rate if rate > 0 else math.inf
        longest = largest * (self.max_steps // 2**self.halvings)
        end = float(evidence.recorded_times[-1]) if self.end_time is None else self.end_time
        if self.end_time is None and end > longest:
            fallen = evidence.recorded_log_excess[0] - evidence.recorded_log_excess
            later = np.flatnonzero(fallen >= 1)
            if len(later):
                k = max(int(later[0]), 1)
                part = (1 - fallen[k - 1]) / (fallen[k] - fallen[k - 1]) if np.isfinite(fallen[k]) else 1.0
                before, after = evidence.recorded_times[k - 1 : k + 1]
                end = float(before + part * (after - before))
        end = min(end, longest)
        fewest = _FEWEST_STEPS if self.step_size is None else 1
        first = max(fewest, math.ceil(end / largest * (1 - 1e-12)))
        return _Steps(end, first, end / first, end / first / 2.0 ** np.arange(self.halvings + 1))


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The end time, the number of the largest steps, their size, and all sizes."""

    end: float
    first: int
    largest: float
    sizes: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Prediction:
    """The error at one step size h, as predicted by the modified equation.

    **Attributes:**

    - `vector`: the error vector divided by h (P,).
    - `error`: the error of the prediction: its last term plus the error of the integrations; at worst the last term but one (or
      twice the last), plus twice the error of the integrations.
    """

    vector: np.ndarray
    error: Error

    @property
    def length(self) -> float:
        """||vector||, but never 0: if nothing moves, all relative errors become huge."""
        return max(_norm(self.vector), 1e-300)


class ModifiedEquation(AbstractFlow):
    """The flow that explicit Euler steps of size h follow up to O(h^(m+1)): w' = (1/h) log(1 + D) w, truncated after D^(m+1).

    D is the difference operator of the Euler map, (D u)(w) = u(w + h F(w)) - u(w), so the velocity is the combination
    F_0 - (F_1 - F_0)/2 + (F_2 - 2 F_1 + F_0)/3 - ... of the velocities F_j at the next Euler steps. To first order it
    is F - (h/2) F'F. Derived in docs/theorems/discretisation.md; Hairer, Lubich, Wanner 2006, Section IX.1.

    **Arguments:**

    - `flow`: the flow.
    - `step`: h, of either sign; 0 with order 0.
    - `order`: m, from 0 (the flow itself) to 3.
    """

    flow: AbstractFlow
    step: Float[Array, ""]
    coefficients: Float[Array, " evaluations"]

    def __init__(self, flow: AbstractFlow, step: float, order: int):
        self.flow = flow
        self.step = jnp.asarray(float(step))
        # Every order uses the same number of evaluations, so that one compiled program serves all of them.
        self.coefficients = jnp.asarray(logarithm_coefficients(order))

    @property
    def trainable(self) -> str | tuple[str, ...]:
        """The names of the weights that move: those of the flow."""
        return self.flow.trainable

    def velocity_and_diagnostics(
        self, time: Float[Array, ""] | float, weights: PyTree, system: System
    ) -> tuple[PyTree, SolveDiagnostics | None]:
        """The combination of velocities at w and at the next Euler steps, `_HIGHEST_ORDER` + 1 of them."""

        def body(carry: tuple[Array, PyTree, PyTree], coefficient: Array) -> tuple[tuple[Array, PyTree, PyTree], None]:
            now, place, total = carry
            velocity = self.flow.velocity(now, place, system)
            moved = tree_add_scaled(place, self.step, velocity)
            return (now + self.step, moved, tree_add_scaled(total, coefficient, velocity)), None

        start = (jnp.asarray(time, dtype=jnp.float64), weights, tree_scale(0.0, weights))
        (_, _, total), _ = jax.lax.scan(body, start, self.coefficients)
        return total, None


def logarithm_coefficients(order: int) -> np.ndarray:
    """c_j with sum_{k <= order} (-1)^k D^k/(k + 1) = sum_j c_j (1 + D)^j, (_HIGHEST_ORDER + 1,), padded by zeros."""
    coefficients = np.zeros(_HIGHEST_ORDER + 1)
    for k in range(order + 1):
        for j in range(k + 1):
            coefficients[j] += (-1) ** j * math.comb(k, j) / (k + 1)
    return coefficients


class _Runs:
    """The runs from the same start with different steps. Each returns its last weights as a vector (P,)."""

    def __init__(self, evidence: Evidence, end: float, rtol: float):
        self.problem: AbstractProblem = evidence.trajectory.problem
        self.model: Any = evidence.trajectory.initial_model
        self.flow: AbstractFlow = evidence.trajectory.flow
        self.system, self.end, self.rtol = evidence.system, end, rtol
        self.start = self._vector(self.model)

    def modified(self, step: float, order: int, rtol: float | None = None) -> np.ndarray:
        """The end of the modified equation's run; nan if it failed."""
        flow = ModifiedEquation(self.flow, step, order)
        run = simulate_once(
            self.problem,
            self.model,
            flow,
            t1=self.end,
            stop=None,
            saveat=[self.end],
            solver="dopri8",
            rtol=self.rtol if rtol is None else rtol,
            error_norm="weights",
            throw=False,
        )
        return self._end(run)

    def euler(self, num_steps: int) -> np.ndarray:
        """The end of `num_steps` Euler steps; nan or infinite if they diverged."""
        size = self.end / num_steps
        run = iterate(
            self.problem, self.model, self.flow, step_size=size, num_steps=num_steps, save_every=num_steps, throw=False
        )
        return self._end(run)

    def _end(self, run: Trajectory) -> np.ndarray:
        return np.full_like(self.start, np.nan) if run.result.failed else self._vector(run.model)

    def _vector(self, model: Any) -> np.ndarray:
        return np.asarray(ravel_pytree(self.system.weights(model))[0])


def _predict(runs: _Runs, flow: np.ndarray, flow_error: float, size: float) -> _Prediction:
    """The error of steps of one size, by the modified equation of the highest order.

    The equation leaves out O(h) times its last term. If the terms do not become smaller, the error is unknown.
    """
    first, second, third = ((runs.modified(size, order) - flow) / size for order in range(1, _HIGHEST_ORDER + 1))
    terms = _norm(first), _norm(second - first), _norm(third - second)
    numerical = 2 * flow_error / size
    if not (terms[2] < terms[1] < terms[0] or max(terms[1:]) <= numerical):
        return _Prediction(third, Error.known(math.inf))
    return _Prediction(third, Error(terms[2] + numerical, max(2 * terms[2], terms[1]) + SAFETY * numerical))


def _order(observed: float, coarse: _Prediction, fine: _Prediction) -> Claim:
    """The claim about the order. It differs from 1 by O(h), and the modified equation gives the difference."""
    expected = 1 + math.log2(coarse.length / fine.length)
    uncertain = sum((one.error * (1 / one.length) for one in (coarse, fine)), Error.known(0.0)) * (1 / math.log(2))
    error, where = uncertain + abs(expected - 1), f"(finite steps move it to {expected:.4g})"
    return compare("order over the finest two step sizes = 1", observed, "==", 1.0, error, _ORDER_RESOLUTION, where)


def _constant(
    richardson: np.ndarray, slope: np.ndarray, slope_error: float, coarse: _Prediction, fine: _Prediction
) -> Claim:
    """The claim that the limit of (w_h - w)/h, extrapolated from the steps with an error O(h^2), is e_1."""
    scale, distance = max(_norm(slope), 1e-300), _norm(richardson - slope)
    error = 2 * fine.error + coarse.error + (_norm(2 * fine.vector - coarse.vector - slope) + slope_error)
    name = "limit of (w_h(T) - w(T))/h = e_1, relative"
    return compare(name, distance / scale, "==", 0.0, error * (1 / scale), _ERROR_RESOLUTION)


def _norm(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))


def _switches(evidence: Evidence) -> tuple[Check, ...]:
    """Without damping: whether the rank of the direction solve is the same at all saved times. With damping no check."""
    data = evidence.trajectory.data
    if "rank" not in data or float(data["damping"].min()) > 0:
        return ()
    change, remark = float(np.ptp(data["rank"].to_numpy())), "at the saved times; the pseudo-inverse jumps with it"
    name = "the rank of the undamped solve does not change"
    return (Check(name, change, "<=", 0.0, rigorous=False, remark=remark),)


def _fastest_rate(evidence: Evidence) -> float | None:
    """The largest decay rate of the linearised flow at the run's start and end; None for a flow without a linearisation."""
    flow = evidence.flow
    if flow.linearised is None:
        return None
    ends = ((0.0, evidence.start), (float(evidence.recorded_times[-1]), evidence.end))
    largest = max(float(_largest_rate(jnp.asarray(t), w, evidence.system, flow)) for t, w in ends)
    decay = flow.decay(evidence.start, evidence.system)
    return largest + max((float(jnp.max(jnp.asarray(rate))) for rate in jax.tree.leaves(decay)), default=0.0)


@eqx.filter_jit
def _largest_rate(time: Float[Array, ""], weights: PyTree, system: System, flow: AbstractFlow) -> Float[Array, ""]:
    law = flow.linearised
    assert law is not None
    return jnp.max(law.linearisation(time, flow.tangent(weights, system), system, Decomposition()).rates)
