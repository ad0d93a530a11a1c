"""Whether a record is a run of its flow, which every theorem about a single run checks beside its own conclusions."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._core import GnflowError, tree_norm, tree_subtract
from ..losses import AbstractLoss
from ._accuracy import EPSILON, ROUNDING_OF_PROGRAMS, TINY
from ._claim import Check, Claim, Error, at_times, compare
from ._description import is_like
from ._evidence import Evidence
from ._recorded_losses import (
    LOSSES,
    RecordedLosses,
    honest_error,
    is_reproduced,
    recorded_losses,
    reproducible,
    reproduction,
)
from ._reruns import matching
from ._settings import check_parts

# The accuracy at which agreement of a record says something, relative to the loss and to the movement of the weights.
_RESOLUTION = 3e-3


def record_facts(evidence: Evidence) -> tuple[Check, ...]:
    """Checks that come before all others: the record is finite, and a run over time."""
    data, times = evidence.trajectory.data, evidence.recorded_times
    losses = [data[name].to_numpy() for name in LOSSES if name in data]
    spoilt = ~np.isfinite(times) | ~np.all([np.isfinite(values) for values in losses], axis=0)
    where = ", ".join(f"t = {time:.4g}" for time in times[spoilt][:3])
    end = evidence.trajectory.result.time
    still = _arrays(evidence.system.model(evidence.end)), _arrays(evidence.trajectory.model)
    ascending = len(times) > 0 and bool(times[0] == 0 and np.all(np.diff(times) > 0))
    return (
        Check.fact("every saved time and loss is finite", not spoilt.any(), f"not at {where}" if where else ""),
        Check.fact("the saved times ascend from 0", ascending),
        Check.fact("the run has a length", len(times) > 1 and float(times[-1]) > 0),
        Check.fact("the last save is the end of the run", len(times) > 0 and bool(np.isclose(times[-1], end, 1e-9, 0))),
        Check.fact("weights that do not move are the first ones", all(map(np.array_equal, *still))),
        _legal_parts(evidence),
    )


def _legal_parts(evidence: Evidence) -> Check:
    """That flow and loss could have been made."""
    try:
        for part in (evidence.trajectory.flow, evidence.trajectory.problem.loss):
            check_parts(part)
    except (GnflowError, TypeError, ValueError) as error:
        return Check.fact("flow and loss are legal", False, str(error))
    return Check.fact("flow and loss are legal", True)


def _arrays(model: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]


def record_claims(evidence: Evidence) -> tuple[Claim, ...]:
    """The stored weights against the record at their times; for flows every save and the last weights against two reruns.

    Made once for all theorems.
    """

    def make() -> tuple[Claim, ...]:
        every = recorded_losses(evidence)
        claims = [_stored_weights(evidence, losses) for losses in every]
        if evidence.is_continuous:
            reproduced = is_reproduced(evidence)
            claims += [_against_reruns(evidence, losses, reproduced) for losses in every]
            claims.append(_last_weights(evidence, reproduced))
            if evidence.never_ascends:
                claims.append(_no_rise(evidence))
        return tuple(claims)

    return evidence.once("claims about the record", make)


def start_claims(evidence: Evidence) -> tuple[Claim, ...]:
    """The first weights against the record of the start alone."""
    return tuple(_stored_weights(evidence, losses, ends=1) for losses in recorded_losses(evidence))


def what_is_compared(evidence: Evidence) -> str:
    """A sentence: what of the record was compared with what, and what was not."""
    if not evidence.is_continuous:
        return "Compared: losses at both ends with the stored weights. Not certified: the steps between, metrics."
    rtol = evidence.flow_run.settings["rtol"]
    how = "reproduced by a rerun with its settings" if is_reproduced(evidence) else "NOT reproduced by a rerun"
    ended = "" if is_reproduced(evidence) else " how the run ended,"
    return (
        f"The theorem is tested on a rerun at rtol {rtol:.2g}, whatever the record says of its own. Compared with reruns: "
        f"losses at all {len(evidence.recorded_times)} saves, the last weights; the record is {how}. Not certified:{ended} "
        f"metrics that no theorem reads, step counts."
    )


def _stored_weights(evidence: Evidence, losses: RecordedLosses, ends: int = 2) -> Claim:
    """One forward pass at each stored state against the record at that time."""
    data = evidence.trajectory.data[losses.name].to_numpy()
    loss: AbstractLoss = evidence.system.loss
    stored = [(evidence.start, 0, "at the start")]
    if ends == 2:
        stored.append((evidence.end, -1, "at the end"))
    passes = [float(loss.value(evidence.system.outputs(weights, losses.x), losses.y)) for weights, _, _ in stored]
    recorded, expected = losses.log(data[[at for _, at, _ in stored]]), losses.log(np.asarray(passes))
    name = f"the {LOSSES[losses.name]} is that of the stored weights (log)"
    where = [place for _, _, place in stored]
    # nan in the record disagrees with every loss of the weights.
    recorded = np.where(np.isnan(recorded), np.inf, recorded)
    return compare(name, recorded, "==", expected, losses.rounding(expected), _RESOLUTION, where, every=True)


def _against_reruns(evidence: Evidence, losses: RecordedLosses, reproduced: bool) -> Claim:
    """Every saved loss: reproduced by the replicate, or else against the reference."""
    what, where = LOSSES[losses.name], at_times(evidence.recorded_times)
    record = losses.logs(evidence.trajectory)
    if reproduced:
        off, allowed, _ = reproduction(evidence, losses, evidence.replicate_run)
        name = f"a rerun with its settings gives every {what} (log)"
        return compare(name, record, "==", record - off, allowed, np.inf, where, every=True)
    at = matching(evidence.recorded_times, evidence.times)
    expected = losses.logs(evidence.flow_run)[at]
    honest = evidence.accuracy.elsewhere(honest_error(evidence, losses), is_like(evidence))
    error = Error(honest.measured[at], honest.at_worst) + losses.rounding(expected)
    name = f"a rerun at another tolerance gives every {what} (log)"
    return compare(name, record, "==", expected, error, _RESOLUTION, where, every=True)


def _last_weights(evidence: Evidence, reproduced: bool) -> Claim:
    """The stored last weights against those of the reruns, over how far they have moved."""
    record, flow, again = evidence.end, evidence.flow_end, evidence.replicated_end
    moved = max(float(tree_norm(tree_subtract(flow, evidence.start))), EPSILON * float(tree_norm(flow)), TINY)
    rounding = ROUNDING_OF_PROGRAMS * float(tree_norm(flow)) / moved
    honest = float(tree_norm(tree_subtract(again, flow))) / moved
    where = "at the end"
    if reproduced:
        off = float(tree_norm(tree_subtract(record, again))) / moved
        allowed = float(reproducible(honest)) + rounding
        if off <= allowed:
            name = "a rerun with its settings gives the last weights (over movement)"
            return compare(name, off, "==", 0.0, allowed, np.inf, where)
    off = float(tree_norm(tree_subtract(record, flow))) / moved
    name = "a rerun at another tolerance gives the last weights (over movement)"
    error = evidence.accuracy.elsewhere(honest, is_like(evidence)) + rounding
    return compare(name, off, "==", 0.0, error, _RESOLUTION, where)


def _no_rise(evidence: Evidence) -> Claim:
    """The recorded loss against the lowest so far, for flows along which it cannot rise."""
    losses = recorded_losses(evidence)[0]
    record = losses.logs(evidence.trajectory)
    at = matching(evidence.recorded_times, evidence.times)
    lowest = np.minimum.accumulate(record)[:-1]
    rounding = losses.rounding(losses.logs(evidence.flow_run)[at])[1:]
    honest = honest_error(evidence, losses)
    worst = evidence.accuracy.elsewhere(honest, is_like(evidence)).at_worst
    error = Error(2 * honest[at][1:], worst) + rounding  # of two saves
    # Agreement with the reruns is checked elsewhere. Here only a rise beyond the error of an honest run counts.
    name = "no save is above the lowest before it (log)"
    where = at_times(evidence.recorded_times[1:])
    return compare(name, record[1:], "<=", lowest, error, np.inf, where, every=True)
