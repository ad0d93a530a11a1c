"""Whether a record comes from its settings: what they give, by the same call once more, against what the record says it did."""

import math

import numpy as np

from .._core import ResultCode
from ..simulate import CARRIED, Trajectory
from ._claim import Check
from ._evidence import Evidence
from ._recorded_losses import is_reproduced, recorded_losses, reproduction
from ._settings import recorded_settings, steps_allowed

# By how much of its length a run with the same settings may end elsewhere: where all saves are reproduced, and where not.
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
# To this part of itself a number that tells of the steps is the same in two runs that take the same ones, but for rounding.
_SAME_MARK = 1e-2


def description(evidence: Evidence) -> tuple[Check, ...]:
    """What has to be true of a record that comes from its settings; where it is not, no theorem holds on the record,
    and nobody is accused for its settings.

    Once both reruns are there. Made once for all theorems.
    """
    return evidence.once("description", lambda: (_valid(evidence), _solver(evidence), _end(evidence), _saves(evidence)))


def _valid(evidence: Evidence) -> Check:
    wrong = recorded_settings(evidence.trajectory).wrong
    return Check.fact("the recorded settings are valid", not wrong, " ".join(wrong))


def _solver(evidence: Evidence) -> Check:
    """The solver of the settings against that of the statistics; where either is missing nothing is said."""
    settings, again = evidence.trajectory.settings, evidence.same_call
    said, taken = settings.get("solver"), evidence.trajectory.stats.get("solver")
    same = taken is None or taken == (again.stats["solver"] if said == "auto" else said)
    remark = "" if same else f"solver = {said!r}, but the run's statistics say {taken!r}"
    return Check.fact("the solver is that of the settings", same, remark)


def _end(evidence: Evidence) -> Check:
    """Where the settings end the run."""
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
    """Whether saves are at times that were asked for, where some were: steps and saves have nothing to do with each other."""
    asked, times = recorded_settings(evidence.trajectory).arguments["saveat"], evidence.recorded_times
    ours = asked is None or bool(np.all(np.isin(times[1:-1], asked)))
    remark = "" if ours else f"saveat = {np.asarray(asked).tolist()!r}"[:200]
    return Check.fact("the saves are at the times of the settings", ours, remark)


def steps_taken(evidence: Evidence) -> tuple[Check, ...]:
    """The steps that the settings take against those of the record: one check, or none where they have nothing to tell,
    because the settings end the run elsewhere or the recorded numbers are none that a run can have.

    Other steps are no sign that the record is no run of its flow: another machine may take them. But what the replicate
    is off by is then not what the record may be off by.
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
        # This leaves open what an honest run is off by, and refutes nothing.
        error = math.nan
        told = {name: record.settings.get(name) for name in ("rtol", "atol", "error_norm", "stop")}
        remark += f"; {', '.join(f'{name} = {value!r}' for name, value in told.items())}"
    return (Check("the run takes the steps of its settings", found[name], "==", given[name], error, remark=remark),)


def is_like(evidence: Evidence) -> bool:
    """Whether the replicate is a run like the record, so that its error tells what the record's may be."""
    valid, solver, *_ = description(evidence)
    return all(check.met for check in (valid, solver, *steps_taken(evidence)))


def _is_reproduced_so_far(evidence: Evidence) -> bool:
    """Whether the same call once more gives every save that it has in common with the record."""
    found = [reproduction(evidence, losses, evidence.same_call) for losses in recorded_losses(evidence)]
    return all(bool(np.all(off <= allowed)) for off, allowed, _ in found)


def _marks(record: Trajectory) -> dict[str, float]:
    """Numbers of a record that tell which steps it took: their counts, and the error that was carried along. Empty
    where they are none that a run can have, with at most so many steps allowed."""
    counts = [record.stats.get(name) for name in _STEPS]
    steps, accepted, rejected = (count if isinstance(count, int) else -1 for count in counts)
    if min(accepted, rejected) < 0 or steps != accepted + rejected or steps > steps_allowed(record):
        return {}
    marks: dict[str, float] = dict(zip(_STEPS, map(float, (steps, accepted, rejected)), strict=True))
    error = record.stats.get(_ERROR)
    # Another solution may have told the error, of which a replicate knows nothing.
    if record.stats.get(f"{_ERROR}_from") == CARRIED and isinstance(error, int | float):
        marks[_ERROR] = float(error)
    return marks
