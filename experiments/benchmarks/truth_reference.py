"""References of the table of truth: the same field integrated by SciPy, twice, and kept in files."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
from truth_integration import Integration, OutOfTime, save_times
from truth_problems import Row
from truth_vector import Field

# Tried in turn until two that follow each other agree; the first is the loosest that is taken for a reference.
RTOLS = (1e-9, 1e-10, 1e-11, 1e-12)
# Where the first of those takes too long.
LOOSE_RTOLS = (1e-6, 1e-7)
# Of equal steps, where those take too long too.
STEPS = (10_000, 20_000, 40_000)
# Where two settings differ by less, in the relative error of the residual, there is no need of a third.
AGREEMENT = 5e-4
# What they may differ by at most: a tenth of the promise.
CONFIRMED = 5e-3
# Flow time times the fastest rate from which an explicit method would take more steps than an implicit one costs.
_STIFF = 1e5
_FINGERPRINT_RTOL = 1e-3
RECOMPUTE = ("none", "unconfirmed", "all")


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


def reference(row: Row, folder: Path, time_limit: float, recompute: str = "none") -> Reference:
    """The row's reference, from `folder` if it is there and still of the same field.

    **Arguments:** `time_limit`: seconds of the processor for each integration; `recompute`: which of the stored ones to ignore,
    a word of `RECOMPUTE`.
    """
    path = folder / f"{row.key}.npz"
    field = Field(row)
    if path.exists() and recompute != "all":
        stored = load(path)
        if _rises(stored.residuals, stored.first_residual, field):
            stored = dataclasses.replace(stored, status="unconfirmed")
        wanted = recompute == "none" or stored.status == "confirmed"
        if wanted and is_of_field(stored, field):
            return stored
    found = _integrate(row, field, time_limit)
    folder.mkdir(parents=True, exist_ok=True)
    save(path, found)
    return found


def is_of_field(stored: Reference, field: Field) -> bool:
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


def _integrate(row: Row, field: Field, time_limit: float) -> Reference:
    began = time.perf_counter()
    start = field.measured(field.start)
    scale = field.time_scale
    end = scale * row.span
    rate = float(np.max(np.abs(np.linalg.eigvals(field.jacobian(0.0, field.start)))))
    methods = ("Radau", "DOP853") if rate * end > _STIFF else ("DOP853", "Radau")
    problem = Integration(field, row.stop, float(field.residual(start["loss"])), time_limit)
    first, second = (functools.partial(problem.solve, method) for method in methods)
    fixed = problem.fixed_steps
    attempts = [(first, RTOLS), (first, LOOSE_RTOLS), (second, LOOSE_RTOLS), (fixed, STEPS)]
    if row.combination.activation == "relu":
        # A solution that slides takes SciPy's methods steps as short as their tolerance.
        attempts = [(fixed, STEPS), (first, LOOSE_RTOLS)]
    status, error, test_error = "time limit", np.nan, np.nan
    best = _nothing(field, times := save_times(scale, end))
    for attempt, settings in attempts:
        solutions: list[dict[str, Any]] = []
        try:
            for setting in settings:
                found, times = attempt(times, setting, cut=not solutions)
                solutions.append(found)
                if len(solutions) > 1:
                    best = solutions[-1]
                    error, test_error = _difference(*solutions[-2:], start["test_outputs"])
                    agree = max(error, test_error) <= CONFIRMED
                    stable = not _rises(best["residuals"], problem.first_residual, field)
                    status = "confirmed" if agree and stable else "unconfirmed"
                    if max(error, test_error) <= AGREEMENT:
                        break
        except OutOfTime:
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


def _rises(residuals: np.ndarray, first: float, field: Field) -> bool:
    """Whether a loss rises that cannot: equal steps too long for a stiff field, whose solutions may agree all the same."""
    return field.never_ascends and bool(np.max(residuals, initial=0.0) > first * (1 + CONFIRMED))


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
