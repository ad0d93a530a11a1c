"""The runs that `verify` makes of its own: the recorded arguments again, and the same flow at a tolerance of verify's own."""

import dataclasses
import math
from typing import Any

import numpy as np

from .._core import GnflowError
from ..metrics import AbstractMetric
from ..simulate import AbstractStopRule, Trajectory, error_norm_kinds, simulate_once
from ..solvers import solver_kinds

# The reference: so many times tighter than the record says it is, and than what a run is by default.
_TIGHTER = 16.0
_RTOL, _ATOL = 1e-3, 1e-13
# A smooth run takes a few times as many steps at 1/16 of its tolerance; one that needs 32 times as many is not waited for.
_MORE_STEPS, _FEWEST_STEPS, _MOST_STEPS = 32, 16384, 262144
# What is legal and above rounding.
_LEAST_RTOL, _MOST_RTOL = 1e-12, 0.5
# Two runs of one program may find the time at which a stop rule is met 1e-6 apart.
_SAME_TIME = 1e-5
_FEWEST_TIMES = 32


@dataclasses.dataclass(frozen=True)
class Rerun:
    """**Attributes:** `trajectory`: None where there is none that could be used; `reason`: why, else empty."""

    trajectory: Trajectory | None
    reason: str = ""


def replicate(record: Trajectory) -> Rerun:
    """The recorded arguments once more: an honest record is reproduced by it to rounding, on the machine that made it.

    Tolerances are clamped to what is legal; metrics and stop rules that `load` could not rebuild are left out.
    """
    settings = record.settings
    rules = tuple(rule for rule in settings["stop"] or () if isinstance(rule, AbstractStopRule))
    t1 = settings["t1"]
    if t1 is None and len(rules) < len(settings["stop"] or ()):
        t1 = float(record.data.time[-1])
    name = settings["solver"]
    return _run(
        record,
        "with its recorded settings",
        t1=t1,
        stop=rules or None,
        saveat=settings["saveat"],
        solver=name if name in solver_kinds else "auto",
        rtol=None if settings["rtol"] is None else _clamped(settings["rtol"], _TIGHTER * _LEAST_RTOL),
        atol=_clamped(settings["atol"], 0.0),
        error_norm=settings["error_norm"] if settings["error_norm"] in error_norm_kinds else "function",
        metrics=tuple(metric for metric in settings["metrics"] if isinstance(metric, AbstractMetric)),
        max_steps=settings["max_steps"],
    )


def reference_rtol(record: Trajectory) -> float:
    """The tolerance of the reference: 1/16 of 1e-3, or of what the record says where that is less."""
    return max(min(_clamped(record.settings["rtol"], _LEAST_RTOL), _RTOL) / _TIGHTER, _LEAST_RTOL)


def reference(
    record: Trajectory,
    times: np.ndarray,
    metrics: tuple[AbstractMetric, ...],
    taken: int,
    rtol: float | None = None,
) -> Rerun:
    """The flow from the record's start to its end at `reference_rtol`, judged in the outputs whatever the record says.

    **Arguments:** `times` (k,): when to save, first 0 and last the end; `metrics`: what to measure then;
    `taken`: steps that the replicate took, which is to say how many more are worth while; `rtol`: another tolerance.
    """
    rtol = reference_rtol(record) if rtol is None else rtol
    end, name = float(times[-1]), record.settings["solver"]
    inner = times[(times > 0) & (times < end)]
    rerun = _run(
        record,
        f"at rtol {rtol:.2g}",
        t1=end,
        stop=None,
        saveat=inner if len(inner) else [end],
        solver=name if name in solver_kinds else "auto",
        rtol=rtol,
        atol=min(_clamped(record.settings["atol"], 0.0), _ATOL),
        error_norm="function",
        metrics=metrics,
        max_steps=min(max(_MORE_STEPS * taken, _FEWEST_STEPS), _MOST_STEPS),
    )
    again = rerun.trajectory
    if again is not None and (again.result.failed or len(again.data.time) != len(times)):
        return Rerun(None, f"rerun at rtol {rtol:.2g} it ends {again.result}")
    return rerun


def reference_times(recorded: np.ndarray, replicated: np.ndarray) -> np.ndarray:
    """When the reference saves: at every recorded time, at those of the replicate that are others, and between them.

    Filled up to 32, 64, ... times where gaps are widest in the logarithm: so integrals over time are resolved, and runs of
    one problem share a compiled program.
    """
    others = replicated[(matching(replicated, recorded) < 0) & (replicated < recorded[-1] * (1 - _SAME_TIME))]
    times = list(np.unique(np.concatenate([recorded, others])))
    wanted = _FEWEST_TIMES
    while wanted < len(times):
        wanted *= 2
    if len(times) == 2:
        times.insert(1, 1e-3 * times[1])
    while len(times) < wanted:
        widest = 1 + int(np.argmax(np.diff(np.log(times[1:]))))
        times.insert(widest + 1, float(np.sqrt(times[widest] * times[widest + 1])))
    return np.asarray(times)


def matching(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of `times` the index of the same one among `others`, both ascending; -1 where there is none."""
    right = np.clip(np.searchsorted(others, times), 0, len(others) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(others[left] - times) < np.abs(others[right] - times), left, right)
    return np.where(np.abs(others[nearest] - times) <= _SAME_TIME * times, nearest, -1)


def _run(record: Trajectory, how: str, **arguments: Any) -> Rerun:
    """A run that is not allowed to raise: what a record says may be anything."""
    try:
        again = simulate_once(record.problem, record.initial_model, record.flow, **arguments, throw=False)
    except (GnflowError, TypeError, ValueError) as error:
        return Rerun(None, f"it cannot be rerun {how}: {error}")
    return Rerun(again)


def _clamped(tolerance: Any, least: float) -> float:
    """What the record says, where that is a tolerance; else the nearest that is."""
    number = float(tolerance) if isinstance(tolerance, int | float) and not math.isnan(tolerance) else _RTOL
    return min(max(number, least, np.finfo(float).tiny), _MOST_RTOL)
