"""The runs that `verify` makes: one with the recorded arguments, and one of the same flow at a tolerance of its own."""

import dataclasses
from typing import Any

import numpy as np

from .._core import GnflowError
from ..metrics import AbstractMetric
from ..simulate import DEFAULT_ATOL, DEFAULT_RTOL, Trajectory, simulate_once
from ._settings import recorded_settings, saved_times, steps_allowed

# The factor by which the tolerance of the reference is smaller than the record's, and than the default.
TIGHTER = 16.0
# At 1/16 of its tolerance a smooth run takes a few times as many steps. A run that needs 32 times as many is given up.
_MORE_STEPS, _FEWEST_STEPS, _MOST_STEPS = 32, 16384, 262144
# The smallest tolerance, which is above rounding.
_LEAST_RTOL = 1e-12
# In two runs of one program the times at which a stop rule is met may differ by 1e-6.
_SAME_TIME = 1e-5
_FEWEST_TIMES = 32
_FIRST_TIME = 1e-3  # of the end, where the record holds no time between


@dataclasses.dataclass(frozen=True)
class Rerun:
    """A rerun, or the reason why there is none.

    **Attributes:**

    - `trajectory`: the run, or None if there is none that can be used.
    - `reason`: why there is none; otherwise empty.
    """

    trajectory: Trajectory | None
    reason: str = ""


def replicate(record: Trajectory) -> Rerun:
    """A run with the recorded arguments. It reproduces an honest record to rounding on the machine that made it.

    Saves do not change the steps. If the record has its own save times, the replicate saves at all of them.
    """
    arguments = dict(recorded_settings(record).arguments)
    if arguments["saveat"] is not None:
        recorded = saved_times(record)
        end = recorded[-1] if arguments["t1"] is None else min(arguments["t1"], recorded[-1])
        inner = recorded[(recorded > 0) & (recorded < end)]
        arguments["saveat"] = np.union1d(arguments["saveat"], inner)
    arguments["max_steps"] = min(steps_allowed(record), max(arguments["max_steps"], _MOST_STEPS))
    return _run(record, "with its recorded settings", **arguments | {"rtol": _recorded_rtol(record)})


def companion(record: Trajectory, times: np.ndarray, metrics: tuple[AbstractMetric, ...], taken: int) -> Rerun:
    """The flow from the record's start to its end at the recorded tolerances, if a replicate ends elsewhere.

    Its difference to the reference shows the error of a run with these tolerances. The arguments are those of `reference`.
    """
    arguments = recorded_settings(record).arguments
    tolerances = {name: arguments[name] for name in ("atol", "error_norm")} | {"rtol": _recorded_rtol(record)}
    return _to_the_end(record, "at its recorded tolerances", times, metrics, taken, **tolerances)


def reference_rtol(record: Trajectory) -> float:
    """The tolerance of the reference: 1/16 of the default one or of the recorded one, whichever is smaller."""
    return max(min(recorded_settings(record).arguments["rtol"], DEFAULT_RTOL) / TIGHTER, _LEAST_RTOL)


def reference(
    record: Trajectory, times: np.ndarray, metrics: tuple[AbstractMetric, ...], taken: int, rtol: float | None = None
) -> Rerun:
    """The flow from the record's start to its end at `reference_rtol`, with errors judged in the outputs.

    **Arguments:**

    - `record`: the recorded run.
    - `times`: the times to save at (k,), from 0 to the end.
    - `metrics`: what to measure at these times.
    - `taken`: the number of steps of the replicate, which decides how many are worth waiting for.
    - `rtol`: another tolerance, or None.
    """
    rtol = reference_rtol(record) if rtol is None else rtol
    atol = min(recorded_settings(record).arguments["atol"], DEFAULT_ATOL)
    # No solver promises anything about values interpolated within a step, so the steps of the reference end at its saves.
    settings = {"rtol": rtol, "atol": atol, "error_norm": "function", "steps_to_saves": True}
    return _to_the_end(record, f"at rtol {rtol:.2g}", times, metrics, taken, **settings)


def _recorded_rtol(record: Trajectory) -> float:
    """The recorded tolerance, but at least so large that a reference can be tighter."""
    return max(recorded_settings(record).arguments["rtol"], TIGHTER * _LEAST_RTOL)


def _to_the_end(
    record: Trajectory, how: str, times: np.ndarray, metrics: tuple[AbstractMetric, ...], taken: int, **settings: Any
) -> Rerun:
    """A run that ends where the record does and has every save."""
    end = float(times[-1])
    inner = times[(times > 0) & (times < end)]
    rerun = _run(
        record,
        how,
        t1=end,
        stop=None,
        saveat=inner if len(inner) else [end],
        solver=recorded_settings(record).arguments["solver"],
        metrics=metrics,
        max_steps=min(max(_MORE_STEPS * taken, _FEWEST_STEPS), _MOST_STEPS),
        **settings,
    )
    again = rerun.trajectory
    if again is not None and (again.result.failed or len(again.data.time) != len(times)):
        return Rerun(None, f"rerun {how} it ends {again.result}")
    return rerun


def reference_times(recorded: np.ndarray, replicated: np.ndarray) -> np.ndarray:
    """The times at which the reference saves: all recorded times, other times of the replicate, and times between them.

    They are filled up to 32, 64, ... times where the gaps are widest in the logarithm. So integrals over time are resolved, and
    runs of one problem share a compiled program.
    """
    others = replicated[(matching(replicated, recorded) < 0) & (replicated < recorded[-1] * (1 - _SAME_TIME))]
    times = np.unique(np.concatenate([recorded, others]))
    wanted = _FEWEST_TIMES
    while wanted < len(times):
        wanted *= 2
    return filled(times, wanted)


def spread_over(times: np.ndarray, number: int) -> np.ndarray:
    """At most `number` of the times, including the first and the last, evenly spread over their indices."""
    return times[np.unique(np.round(np.linspace(0, len(times) - 1, min(len(times), number))).astype(int))]


def filled(times: np.ndarray, wanted: int) -> np.ndarray:
    """`times` (the first 0), filled up to `wanted` times by halving the widest gaps in the logarithm of time."""
    if len(times) == 2:
        times = np.insert(times, 1, _FIRST_TIME * times[1])
    while len(times) < wanted:
        widest = 1 + int(np.argmax(np.diff(np.log(times[1:]))))
        times = np.insert(times, widest + 1, np.sqrt(times[widest] * times[widest + 1]))
    return times


def matching(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of `times` the index of the same time in `others`, or -1 if there is none. Both are ascending."""
    right = np.clip(np.searchsorted(others, times), 0, len(others) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(others[left] - times) < np.abs(others[right] - times), left, right)
    return np.where(np.abs(others[nearest] - times) <= _SAME_TIME * times, nearest, -1)


def ends_with(run: Trajectory, times: np.ndarray) -> bool:
    """Whether the run ends at the last of `times`, (k,)."""
    return bool(matching(run.data.time.to_numpy()[-1:], times[-1:])[0] == 0)


def _run(record: Trajectory, how: str, **arguments: Any) -> Rerun:
    """A run that never raises, because a record may contain any arguments."""
    try:
        again = simulate_once(record.problem, record.initial_model, record.flow, **arguments, throw=False)
    except (GnflowError, TypeError, ValueError) as error:
        return Rerun(None, f"it cannot be rerun {how}: {error}")
    return Rerun(again)
