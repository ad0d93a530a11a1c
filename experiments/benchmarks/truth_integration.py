"""A row of the table of truth integrated: by SciPy with error control, or in equal steps."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from truth_vector import Field

# Of the first residual: where the runs end at the latest.
LAST_RESIDUAL = 1e-5
NUM_SAVES = 10
_FIRST_SAVE = 0.1  # in time scales of the first loss decrease
_CHECK_EVERY = 1000


class OutOfTime(Exception):
    """An integration took longer than its limit, or its steps became too small."""


def save_times(scale: float, end: float) -> np.ndarray:
    """The times (K,) at which a run is compared, from a tenth of its time scale on or of its end if that comes first."""
    return np.geomspace(min(_FIRST_SAVE * scale, 0.1 * end), end, NUM_SAVES)


class Integration:
    """A row's integrations, each within a time limit.

    **Arguments:** `field`; `stop`: the relative loss of the stop rule, or None;
    `first_residual`: r at the start; `time_limit`: seconds of the processor for each.
    """

    def __init__(self, field: Field, stop: float | None, first_residual: float, time_limit: float):
        self.field = field
        self.stop = stop
        self.first_residual = first_residual
        self.scale = field.time_scale
        self.time_limit = time_limit

    def solve(self, method: str, times: np.ndarray, rtol: float, cut: bool) -> tuple[dict[str, Any], np.ndarray]:
        """By SciPy's "DOP853" or "Radau": what is compared, and when the stop rule is met; and the times.

        With `cut` they end where the residual reaches `LAST_RESIDUAL`: rounding leaves nothing to compare beyond.
        """
        events = [self._residual_reaches(LAST_RESIDUAL if self.stop is None else np.sqrt(self.stop))]
        events[0].terminal = cut and self.stop is None
        if cut and self.stop is not None:
            events.append(self._residual_reaches(LAST_RESIDUAL))
            events[1].terminal = True
        solution = self._solve_ivp(
            method, float(times[-1]), rtol, events, dense_output=cut, t_eval=None if cut else times
        )
        vectors = solution.y.T
        if cut:
            end = float(solution.t[-1])
            times = times if end == times[-1] else save_times(self.scale, end)
            vectors = solution.sol(times).T
        field = self.field
        states = [field.measured(vector) for vector in vectors]
        stop_time = stop_rate = np.nan
        if self.stop is not None and solution.t_events[0].size:
            stop_time = float(solution.t_events[0][0])
            loss, slope = field.programs.loss_and_rate(field.arrays, stop_time, solution.y_events[0][0])
            stop_rate = abs(float(slope)) / (2 * (float(loss) - field.minimum))
        found = self._measured(states, vectors[-1])
        return {**found, "stop_time": stop_time, "stop_rate": stop_rate, "rtol": rtol, "method": method}, times

    def fixed_steps(self, times: np.ndarray, count: int, cut: bool) -> tuple[dict[str, Any], np.ndarray]:
        """The same by about `count` equal steps of the midpoint rule, which a discontinuity of the field does not stop.

        Where the solution slides on one, the steps chatter about it and converge to the solution of Filippov as 1/count. With
        `cut` the end is the last of the times at which the residual is still above `LAST_RESIDUAL`.
        """
        field, deadline = self.field, time.process_time() + self.time_limit
        vector, now, states, stop_time, stop_rate = field.start, 0.0, [], np.nan, np.nan
        for at in times:
            steps = int(np.ceil((at - now) / times[-1] * count))
            for part in np.array_split(np.arange(steps), max(1, steps // _CHECK_EVERY)):
                length = (at - now) / steps
                begin = now + part[0] * length
                vector = np.asarray(field.programs.advanced(field.arrays, begin, vector, length, len(part)))
                if time.process_time() > deadline:
                    raise OutOfTime
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
        below = np.flatnonzero(found["residuals"] < LAST_RESIDUAL * self.first_residual)
        if cut and below.size and below[0] > 0:
            return self.fixed_steps(save_times(self.scale, float(times[below[0] - 1])), count, cut=False)
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

    def _solve_ivp(self, method: str, end: float, rtol: float, events: list[Any], **options: Any) -> Any:
        deadline = time.process_time() + self.time_limit

        def in_time(function: Callable) -> Callable:
            def checked(at: float, vector: np.ndarray) -> np.ndarray:
                if time.process_time() > deadline:
                    raise OutOfTime
                return function(at, vector)

            return checked

        if method == "Radau":
            options["jac"] = in_time(self.field.jacobian)
        with np.errstate(all="ignore"):
            solution = solve_ivp(
                in_time(self.field.velocity),
                (0.0, end),
                self.field.start,
                method=method,
                rtol=rtol,
                atol=self.field.atol(rtol, self.scale),
                first_step=min(1e-6 * self.scale, end),
                events=events or None,
                **options,
            )
        if not solution.success:
            raise OutOfTime
        return solution

    def _residual_reaches(self, share: float) -> Any:
        def distance(at: float, vector: np.ndarray) -> float:
            residual = self.field.residual(self.field.programs.loss(self.field.arrays, vector))
            return float(np.log(max(residual, 1e-300) / (share * self.first_residual)))

        distance.direction = -1.0
        return distance
