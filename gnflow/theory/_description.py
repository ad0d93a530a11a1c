"""Whether a record comes from its settings: a rerun of the same call is compared with what the record says."""

import math

import numpy as np

from .._core import ResultCode
from ..simulate import CARRIED, Trajectory
from ._claim import Check
from ._evidence import Evidence
from ._recorded_losses import is_reproduced, recorded_losses, reproduction
from ._settings import recorded_settings, steps_allowed

# The relative difference of the end times of two runs with the same settings, if all saves are reproduced, and otherwise.
_SAME_END, _SIMILAR_END = 1e-3, 0.1
_ENDED_BY = {
    ResultCode.TIME_REACHED: "t1",
    ResultCode.MAX_STEPS_REACHED: "max_steps",
    ResultCode.STOP_RULE_MET: "stop",
    ResultCode.STOP_RULE_MET_AT_START: "stop",
    ResultCode.STATIONARY: "stop",
}
_STEPS = ("num_steps", "num_accepted_steps", "num_rejected_steps")
_ERROR = "estimated_error"
# The relative difference, by rounding, of a number that depends on the steps, in two runs that take the same steps.
_SAME_MARK = 1e-2


def description(evidence: Evidence) -> tuple[Check, ...]:
    """Checks that a record that comes from its settings must meet.

    If one is not met, no theorem holds on the record, but none is violated either, because the settings may be wrong. The
    checks need both reruns, and are made once for all theorems.
    """
    return evidence.once("description", lambda: (_valid(evidence), _solver(evidence), _end(evidence), _saves(evidence)))


def _valid(evidence: Evidence) -> Check:
    wrong = recorded_settings(evidence.trajectory).wrong
    return Check.fact("the recorded settings are valid", not wrong, " ".join(wrong))


def _solver(evidence: Evidence) -> Check:
    """The solver in the settings against the one in the statistics. Without the latter the check is met."""
    settings, again = evidence.trajectory.settings, evidence.same_call
    said, taken = settings.get("solver"), evidence.trajectory.stats.get("solver")
    same = taken is None or taken == (again.stats["solver"] if said == "auto" else said)
    remark = "" if same else f"solver = {said!r}, but the run's statistics say {taken!r}"
    return Check.fact("the solver is that of the settings", same, remark)


def _end(evidence: Evidence) -> Check:
    """Whether the run ends where its settings end it."""
    record, again = evidence.trajectory, evidence.same_call
    here, there = float(evidence.recorded_times[-1]), float(again.data.time[-1])
    error = (_SAME_END if _is_reproduced_so_far(evidence) else _SIMILAR_END) * max(here, there)
    if abs(here - there) <= error:
        return Check("the run ends where its settings end it", here, "==", there, error)
    name = _ENDED_BY.get(again.result.code if there < here else record.result.code)
    value = f"{name} = {record.settings.get(name)!r}; " if name else ""
    remark = f"{value}the settings give {again.result.code}, the record says {record.result.code}"
    return Check("the run ends where its settings end it", here, "==", there, error, remark=remark)


def _saves(evidence: Evidence) -> Check:
    """Whether saves are at the times that were asked for, if any were. (Saves do not depend on the steps.)"""
    asked, times = recorded_settings(evidence.trajectory).arguments["saveat"], evidence.recorded_times
    ours = asked is None or bool(np.all(np.isin(times[1:-1], asked)))
    remark = "" if ours else f"saveat = {np.asarray(asked).tolist()!r}"[:200]
    return Check.fact("the saves are at the times of the settings", ours, remark)


def steps_taken(evidence: Evidence) -> tuple[Check, ...]:
    """The steps that the settings take against those of the record, as one check.

    There is no check if the settings end the run elsewhere, or if no run can have the recorded numbers. Other steps do not show
    that the record is not a run of its flow, because another machine may take them. But then the error of the replicate is not
    the error that the record may have.
    """
    record, again = evidence.trajectory, evidence.same_call
    found = _marks(record)
    ends_elsewhere = not description(evidence)[2].met
    if not found or (ends_elsewhere and _is_reproduced_so_far(evidence)):
        return ()
    given = {name: float(again.stats[name]) for name in found}
    others = [name for name in found if not math.isclose(found[name], given[name], rel_tol=_SAME_MARK)]
    name = _STEPS[0] if is_reproduced(evidence) or not others else others[0]
    error, remark = abs(found[name] - given[name]), name
    if name in others:
        # With this error the check is open: the error of an honest run is unknown, and nothing is refuted.
        error = math.nan
        told = {name: record.settings.get(name) for name in ("rtol", "atol", "error_norm", "stop")}
        remark += f"; {', '.join(f'{name} = {value!r}' for name, value in told.items())}"
    return (Check("the run takes the steps of its settings", found[name], "==", given[name], error, remark=remark),)


def is_like(evidence: Evidence) -> bool:
    """Whether the replicate is a run like the record, so that both have similar errors."""
    valid, solver, *_ = description(evidence)
    return all(check.met for check in (valid, solver, *steps_taken(evidence)))


def _is_reproduced_so_far(evidence: Evidence) -> bool:
    """Whether the rerun of the same call reproduces every save that it has in common with the record."""
    found = [reproduction(evidence, losses, evidence.same_call) for losses in recorded_losses(evidence)]
    return all(bool(np.all(off <= allowed)) for off, allowed, _ in found)


def _marks(record: Trajectory) -> dict[str, float]:
    """Numbers of a record that depend on its steps: their counts, and the error that was carried along.

    Empty if no run with the allowed number of steps can have these counts.
    """
    counts = [record.stats.get(name) for name in _STEPS]
    steps, accepted, rejected = (count if isinstance(count, int) else -1 for count in counts)
    if min(accepted, rejected) < 0 or steps != accepted + rejected or steps > steps_allowed(record):
        return {}
    marks: dict[str, float] = dict(zip(_STEPS, map(float, (steps, accepted, rejected)), strict=True))
    error = record.stats.get(_ERROR)
    # If the error is known from a second solution, a replicate has no such number to compare with.
    if record.stats.get(f"{_ERROR}_from") == CARRIED and isinstance(error, int | float):
        marks[_ERROR] = float(error)
    return marks
