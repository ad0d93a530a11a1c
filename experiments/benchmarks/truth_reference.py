"""References of the table of truth: the same field integrated by SciPy, twice, and kept in files."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp
from truth_field import FIELDS, State
from truth_problems import Row, build

from gnflow.simulate._measure import numbers_as_arrays

# Tried in turn until two that follow each other agree; the first is the loosest that is taken for a reference.
RTOLS = (1e-9, 1e-10, 1e-11, 1e-12)
# Where the first of those takes too long.
LOOSE_RTOLS = (1e-6, 1e-7)
# Of equal steps, where those take too long too.
STEPS = (10_000, 20_000, 40_000)
_CHECK_EVERY = 1000
NUM_SAVES = 10
# Of the first residual: where the runs end at the latest.
LAST_RESIDUAL = 1e-5
# Where two settings differ by less, in the relative error of the residual, there is no need of a third.
AGREEMENT = 5e-4
# What they may differ by at most: a tenth of the promise.
CONFIRMED = 5e-3
_FIRST_SAVE = 0.1  # in time scales of the first loss decrease
_ATOL_SHARE = 1e-3  # of rtol times the scale of a leaf
# Flow time times the fastest rate from which an explicit method would take more steps than an implicit one costs.
_STIFF = 1e4
_FINGERPRINT_RTOL = 1e-3


@dataclasses.dataclass(frozen=True)
class Reference:
    """A row's solution at its save times.

    **Attributes:** `status`: "confirmed", "unconfirmed" (no two tolerances agreed) or "time limit"; `times` (K,);
    `residuals` (K,): r = sqrt(2 (L - L*)); `floors` (K,): what rounding of the weights alone does to r, relative;
    `test_losses` (K,); `test_outputs` (K, n, C), `first_test_outputs` (n, C); `weights` (P,): at the end; `ranks` (K + 1,): of
    the Gram matrix, at the start too; `stop_time`, `stop_rate`: when the stop rule is met (nan if never) and
    |d log r/dt| there; `error`, `test_error`: the largest difference of r (relative) and of the test outputs (relative to
    their rms change) between the last two tolerances; `method`, `rtol`, `evaluations`, `seconds`: how it was found;
    `fingerprint`: of the field and its start; `field_difference`: of gnflow's velocity at the start, relative.
    """

    status: str
    times: np.ndarray
    residuals: np.ndarray
    floors: np.ndarray
    test_losses: np.ndarray
    test_outputs: np.ndarray
    first_test_outputs: np.ndarray
    weights: np.ndarray
    ranks: np.ndarray
    first_residual: float
    stop_time: float
    stop_rate: float
    error: float
    test_error: float
    method: str
    rtol: float
    evaluations: int
    seconds: float
    fingerprint: np.ndarray
    field_difference: float

    @property
    def rank_changes(self) -> bool:
        """Whether the Gram matrix changes its numerical rank between saves."""
        return bool(np.any(self.ranks != self.ranks[0]))


def reference(row: Row, folder: Path, time_limit: float, recompute: bool = False) -> Reference:
    """The row's reference, from `folder` if it is there and still of the same field.

    **Arguments:** `time_limit`: seconds for each integration; `recompute`: whether to ignore a stored one.
    """
    path = folder / f"{row.key}.npz"
    field = Field(row)
    if path.exists() and not recompute:
        stored = load(path)
        if is_of_field(stored, field):
            return stored
    found = _integrate(row, field, time_limit)
    folder.mkdir(parents=True, exist_ok=True)
    save(path, found)
    return found


def is_of_field(stored: Reference, field: "Field") -> bool:
    """Whether the field, and the start, are still what the reference was computed with."""
    return np.allclose(stored.fingerprint, field.fingerprint, rtol=_FINGERPRINT_RTOL, atol=0)


def save(path: Path, found: Reference) -> None:
    """Write it as an .npz file."""
    np.savez_compressed(path, **{name: np.asarray(value) for name, value in dataclasses.asdict(found).items()})


def load(path: Path) -> Reference:
    """Read what `save` wrote."""
    with np.load(path) as stored:
        values = {name: stored[name][()] if stored[name].ndim == 0 else stored[name] for name in stored.files}
    values["status"], values["method"] = str(values["status"]), str(values["method"])
    return Reference(**values)


class Field:
    """A row's velocity, losses and Jacobians as functions of all weights in one vector."""

    def __init__(self, row: Row):
        problem, model, flow = build(row)
        self.system = flow.system(problem, model)
        weights = self.system.weights(model)
        self.arrays, static = eqx.partition((weights, numbers_as_arrays(flow), self.system), eqx.is_array)
        self.programs = _programs(row.combination.name, row.combination.flow, static)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(weights)]
        self.start = np.concatenate([leaf.ravel() for leaf in leaves])
        self.sizes = [leaf.size for leaf in leaves]
        self.minimum = float(self.system.loss.minimum(problem.y_train))
        self.evaluations = 0

    def velocity(self, time: float, vector: np.ndarray) -> np.ndarray:
        """w' (P,)."""
        self.evaluations += 1
        return np.asarray(self.programs.velocity(self.arrays, time, vector))

    def jacobian(self, time: float, vector: np.ndarray) -> np.ndarray:
        """Dw' (P, P), exact where the derivative of the decomposition is finite, else by forward differences."""
        exact = np.asarray(self.programs.jacobian(self.arrays, time, vector))
        if np.all(np.isfinite(exact)):
            return exact
        middle = self.velocity(time, vector)
        step = np.sqrt(np.finfo(float).eps) * np.maximum(np.abs(vector), 1e-3 * np.max(np.abs(vector)))
        return np.stack(
            [
                (self.velocity(time, vector + step[i] * unit) - middle) / step[i]
                for i, unit in enumerate(np.eye(vector.size))
            ],
            axis=1,
        )

    def measured(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Loss, test loss, test outputs, rank and floor at one state."""
        return jax.tree.map(np.asarray, self.programs.measured(self.arrays, vector))

    def residual(self, loss: Any) -> np.ndarray:
        """r = sqrt(2 (L - L*))."""
        return np.sqrt(2 * np.maximum(np.asarray(loss, dtype=float) - self.minimum, 0.0))

    @property
    def time_scale(self) -> float:
        """(L - L*)/|dL/dt| at the start: the time in which the loss would vanish at its first rate."""
        loss, rate = self.programs.loss_and_rate(self.arrays, 0.0, self.start)
        return float((loss - self.minimum) / abs(rate))

    @property
    def fingerprint(self) -> np.ndarray:
        """The velocity's norm at the start and beside it, which tells a stored reference of another field."""
        beside = self.start + 0.1 * np.random.default_rng(0).standard_normal(self.start.size)
        return np.asarray([np.linalg.norm(self.velocity(0.0, vector)) for vector in (self.start, beside)])

    def difference_from_flow(self) -> float:
        """How far gnflow's own velocity is from this one at the start, relative."""
        own = np.asarray(self.programs.velocity_of_flow(self.arrays, 0.0, self.start))
        velocity = self.velocity(0.0, self.start)
        return float(np.linalg.norm(own - velocity) / np.linalg.norm(velocity))

    def atol(self, rtol: float, time_scale: float) -> np.ndarray:
        """Absolute tolerances (P,): a thousandth of rtol times the size of a leaf or of its first movement."""
        moved = np.abs(self.velocity(0.0, self.start)) * time_scale
        ends = np.cumsum(self.sizes)
        scales = [
            np.full(size, max(np.max(np.abs(self.start[end - size : end])), np.max(moved[end - size : end])))
            for size, end in zip(self.sizes, ends, strict=True)
        ]
        scale = np.concatenate(scales)
        return _ATOL_SHARE * rtol * np.where(scale > 0, scale, np.max(scale))


class _OutOfTime(Exception):
    """A row's integration took longer than its limit."""


def _integrate(row: Row, field: Field, time_limit: float) -> Reference:
    began = time.perf_counter()
    start = field.measured(field.start)
    scale = field.time_scale
    end = scale * row.span
    rate = float(np.max(np.abs(np.linalg.eigvals(field.jacobian(0.0, field.start)))))
    problem = _Integration(field, row.stop, float(field.residual(start["loss"])), scale, time_limit)
    problem.method = "Radau" if rate * end > _STIFF else "DOP853"
    solve, fixed = problem.solve, problem.fixed_steps
    attempts = [(solve, RTOLS), (solve, LOOSE_RTOLS), (fixed, STEPS)]
    if row.combination.activation == "relu":
        # A solution that slides takes SciPy's methods steps as short as their tolerance.
        attempts = [(fixed, STEPS), (solve, LOOSE_RTOLS)]
    status, error, test_error = "time limit", np.nan, np.nan
    best = _nothing(field, times := _save_times(scale, end))
    for method, settings in attempts:
        solutions: list[dict[str, Any]] = []
        try:
            for setting in settings:
                found, times = method(times, setting, cut=not solutions)
                solutions.append(found)
                if len(solutions) > 1:
                    best = solutions[-1]
                    error, test_error = _difference(*solutions[-2:], start["test_outputs"])
                    status = "confirmed" if max(error, test_error) <= CONFIRMED else "unconfirmed"
                    if max(error, test_error) <= AGREEMENT:
                        break
        except _OutOfTime:
            pass
        if status == "confirmed":
            break
    return Reference(
        status=status,
        times=times,
        residuals=best["residuals"],
        floors=best["floors"],
        test_losses=best["test_losses"],
        test_outputs=best["test_outputs"],
        first_test_outputs=start["test_outputs"],
        weights=best["weights"],
        ranks=np.concatenate([[start["rank"]], best["ranks"]]),
        first_residual=problem.first_residual,
        stop_time=best["stop_time"],
        stop_rate=best["stop_rate"],
        error=float(error),
        test_error=float(test_error),
        method=best["method"],
        rtol=best["rtol"],
        evaluations=field.evaluations,
        seconds=time.perf_counter() - began,
        fingerprint=field.fingerprint,
        field_difference=field.difference_from_flow(),
    )


def _save_times(scale: float, end: float) -> np.ndarray:
    return np.geomspace(min(_FIRST_SAVE * scale, 0.1 * end), end, NUM_SAVES)


class _Integration:
    """A row's integration by SciPy, with one method, within a time limit for each tolerance."""

    def __init__(self, field: Field, stop: float | None, first_residual: float, scale: float, time_limit: float):
        self.field = field
        self.stop = stop
        self.first_residual = first_residual
        self.scale = scale
        self.time_limit = time_limit
        self.method = "DOP853"

    def solve(self, times: np.ndarray, rtol: float, cut: bool) -> tuple[dict[str, Any], np.ndarray]:
        """What is compared and when the stop rule is met; and the times, an earlier end of which is found if `cut`.

        Past `LAST_RESIDUAL` rounding leaves nothing to compare.
        """
        events = [self._residual_reaches(LAST_RESIDUAL if self.stop is None else np.sqrt(self.stop))]
        events[0].terminal = cut and self.stop is None
        if cut and self.stop is not None:
            events.append(self._residual_reaches(LAST_RESIDUAL))
            events[1].terminal = True
        solution = self._solve_ivp(float(times[-1]), rtol, events, dense_output=cut, t_eval=None if cut else times)
        vectors = solution.y.T
        if cut:
            end = float(solution.t[-1])
            times = times if end == times[-1] else _save_times(self.scale, end)
            vectors = solution.sol(times).T
        field = self.field
        states = [field.measured(vector) for vector in vectors]
        stop_time = stop_rate = np.nan
        if self.stop is not None and solution.t_events[0].size:
            stop_time = float(solution.t_events[0][0])
            loss, slope = field.programs.loss_and_rate(field.arrays, stop_time, solution.y_events[0][0])
            stop_rate = abs(float(slope)) / (2 * (float(loss) - field.minimum))
        found = self._measured(states, vectors[-1])
        return {**found, "stop_time": stop_time, "stop_rate": stop_rate, "rtol": rtol, "method": self.method}, times

    def fixed_steps(self, times: np.ndarray, count: int, cut: bool) -> tuple[dict[str, Any], np.ndarray]:
        """The same by about `count` equal steps of the midpoint rule, which a discontinuity of the field does not stop.

        Where the solution slides on one, the steps chatter about it and converge to the solution of Filippov as 1/count.
        """
        field, deadline = self.field, time.perf_counter() + self.time_limit
        vector, now, states, stop_time, stop_rate = field.start, 0.0, [], np.nan, np.nan
        for at in times:
            steps = int(np.ceil((at - now) / times[-1] * count))
            for part in np.array_split(np.arange(steps), max(1, steps // _CHECK_EVERY)):
                length = (at - now) / steps
                begin = now + part[0] * length
                vector = np.asarray(field.programs.advanced(field.arrays, begin, vector, length, len(part)))
                if time.perf_counter() > deadline:
                    raise _OutOfTime
                loss, slope = field.programs.loss_and_rate(field.arrays, begin, vector)
                residual = float(field.residual(loss))
                if (
                    self.stop is not None
                    and np.isnan(stop_time)
                    and residual <= np.sqrt(self.stop) * self.first_residual
                ):
                    # Within one part the logarithm of the residual is taken for a straight line.
                    rate = abs(float(slope)) / (2 * (float(loss) - field.minimum))
                    over = np.log(np.sqrt(self.stop) * self.first_residual / max(residual, 1e-300)) / rate
                    stop_time, stop_rate = begin + len(part) * length - over, rate
            now = float(at)
            states.append(field.measured(vector))
        found = self._measured(states, vector)
        return {**found, "stop_time": stop_time, "stop_rate": stop_rate, "rtol": 1 / count, "method": "midpoint"}, times

    def _measured(self, states: list[dict[str, np.ndarray]], vector: np.ndarray) -> dict[str, Any]:
        residuals = self.field.residual([state["loss"] for state in states])
        return {
            "residuals": residuals,
            "floors": np.asarray([state["floor"] for state in states]) / np.maximum(residuals**2, 1e-300),
            "test_losses": np.asarray([state["test_loss"] for state in states]),
            "test_outputs": np.stack([state["test_outputs"] for state in states]),
            "weights": vector,
            "ranks": np.asarray([state["rank"] for state in states]),
        }

    def _solve_ivp(self, end: float, rtol: float, events: list[Any], **options: Any) -> Any:
        deadline = time.perf_counter() + self.time_limit

        def in_time(function: Callable) -> Callable:
            def checked(at: float, vector: np.ndarray) -> np.ndarray:
                if time.perf_counter() > deadline:
                    raise _OutOfTime
                return function(at, vector)

            return checked

        if self.method == "Radau":
            options["jac"] = in_time(self.field.jacobian)
        with np.errstate(all="ignore"):
            solution = solve_ivp(
                in_time(self.field.velocity),
                (0.0, end),
                self.field.start,
                method=self.method,
                rtol=rtol,
                atol=self.field.atol(rtol, self.scale),
                first_step=min(1e-6 * self.scale, end),
                events=events or None,
                **options,
            )
        if not solution.success:
            raise _OutOfTime
        return solution

    def _residual_reaches(self, share: float) -> Any:
        def distance(at: float, vector: np.ndarray) -> float:
            residual = self.field.residual(self.field.programs.loss(self.field.arrays, vector))
            return float(np.log(max(residual, 1e-300) / (share * self.first_residual)))

        distance.direction = -1.0
        return distance


def _difference(one: dict[str, Any], other: dict[str, Any], first_test_outputs: np.ndarray) -> tuple[float, float]:
    """Of r, relative and beyond what rounding does to it, and of the test outputs, relative to their change."""
    error = np.abs(one["residuals"] - other["residuals"]) / other["residuals"]
    moved = rms(other["test_outputs"] - first_test_outputs)
    tests = rms(one["test_outputs"] - other["test_outputs"]) / moved
    return float(np.max(np.maximum(error - 10 * other["floors"], 0.0))), float(np.max(tests))


def rms(outputs: np.ndarray) -> np.ndarray:
    """Root mean square over the samples and outputs of each time."""
    return np.sqrt(np.mean(outputs**2, axis=(-2, -1)))


def _nothing(field: Field, times: np.ndarray) -> dict[str, Any]:
    nan = np.full(times.shape, np.nan)
    shape = (*times.shape, *field.system.problem.y_test.shape)
    return {
        **dict.fromkeys(("residuals", "floors", "test_losses", "ranks"), nan),
        "test_outputs": np.full(shape, np.nan),
        "weights": np.full(field.start.shape, np.nan),
        **dict.fromkeys(("stop_time", "stop_rate", "rtol"), np.nan),
        "method": "none",
    }


class _Programs:
    """Compiled functions of (arrays, time, vector) of one combination, whose rows share everything but arrays.

    Plain `jax.jit` on arrays alone: one call takes a third of the time that it takes with whole modules as arguments.
    """

    def __init__(self, kind: str, static: Any):
        self.kind = kind
        self.static = static
        self.velocity = jax.jit(self._velocity)
        self.jacobian = jax.jit(jax.jacfwd(self._velocity, argnums=2))
        self.velocity_of_flow = jax.jit(self._velocity_of_flow)
        self.advanced = jax.jit(self._advanced)
        self.loss = jax.jit(self._loss)
        self.loss_and_rate = jax.jit(self._loss_and_rate)
        self.measured = jax.jit(self._measured)

    def _parts(self, arrays: Any, vector: Any) -> tuple[Any, Any, Any]:
        template, flow, system = eqx.combine(arrays, self.static)
        leaves, structure = jax.tree.flatten(template)
        ends = np.cumsum([leaf.size for leaf in leaves])
        split = [vector[end - leaf.size : end].reshape(leaf.shape) for leaf, end in zip(leaves, ends, strict=True)]
        return jax.tree.unflatten(structure, split), flow, system

    def _outputs(self, arrays: Any, vector: Any) -> Any:
        weights, _, system = self._parts(arrays, vector)
        return system.outputs(weights).reshape(-1)

    def _velocity(self, arrays: Any, time: Any, vector: Any) -> Any:
        if self.kind not in FIELDS:
            return self._velocity_of_flow(arrays, time, vector)
        _, flow, system = self._parts(arrays, vector)
        targets = system.problem.y_train

        def evaluate(at: Any) -> Any:
            return self._outputs(arrays, at)

        outputs = evaluate(vector).reshape(targets.shape)
        now = jnp.asarray(time, dtype=jnp.float64)
        state = State(now, evaluate, vector, outputs, targets, system.loss, system.mobility)
        return FIELDS[self.kind](state, flow.dynamics)

    def _velocity_of_flow(self, arrays: Any, time: Any, vector: Any) -> Any:
        weights, flow, system = self._parts(arrays, vector)
        velocity = flow.velocity(jnp.asarray(time, dtype=jnp.float64), weights, system)
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(velocity)])

    def _advanced(self, arrays: Any, time: Any, vector: Any, step: Any, count: Any) -> Any:
        """`count` midpoint steps from `time`."""

        def advance(number: Any, at: Any) -> Any:
            now = time + number * step
            middle = at + step / 2 * self._velocity(arrays, now, at)
            return at + step * self._velocity(arrays, now + step / 2, middle)

        return jax.lax.fori_loop(0, count, advance, vector)

    def _loss(self, arrays: Any, vector: Any) -> Any:
        weights, _, system = self._parts(arrays, vector)
        return system.train_loss(weights)

    def _loss_and_rate(self, arrays: Any, time: Any, vector: Any) -> tuple[Any, Any]:
        loss, slope = jax.value_and_grad(lambda at: self._loss(arrays, at))(vector)
        return loss, slope @ self._velocity(arrays, time, vector)

    def _measured(self, arrays: Any, vector: Any) -> dict[str, Any]:
        """`floor`: what a relative change of every weight by one rounding unit may do to L - L*, and that of L* itself."""

        weights, _, system = self._parts(arrays, vector)
        targets, epsilon = system.problem.y_train, jnp.finfo(jnp.float64).eps
        jacobian = jax.jacrev(lambda at: self._outputs(arrays, at))(vector)
        eigenvalues = jnp.linalg.eigvalsh(jacobian @ jacobian.T)
        moved = epsilon * (jnp.abs(jacobian) @ jnp.abs(vector))
        gradient = system.loss.gradient(system.outputs(weights), targets).reshape(-1)
        curvature = system.loss.smoothness(targets.shape[0]) / 2 * moved @ moved
        return {
            "loss": system.train_loss(weights),
            "test_loss": system.test_loss(weights),
            "test_outputs": system.outputs(weights, system.problem.x_test),
            "rank": jnp.sum(eigenvalues > eigenvalues.size * epsilon * jnp.max(jnp.abs(eigenvalues))),
            "floor": jnp.abs(gradient) @ moved + curvature + epsilon * jnp.abs(system.loss.minimum(targets)),
        }


_compiled: dict[str, _Programs] = {}


def _programs(name: str, kind: str, static: Any) -> _Programs:
    """The combination's programs; those of another static part would be wrong, so that it is compared."""
    programs = _compiled.setdefault(name, _Programs(kind, static))
    assert eqx.tree_equal(programs.static, static), name
    return programs
