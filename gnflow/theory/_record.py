"""Whether a record is a run of its flow: what every theorem about a single run asks of it, beside its own conclusions."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._core import tree_norm, tree_subtract
from ..losses import AbstractLoss
from ..simulate import Trajectory
from ._check import Check
from ._claim import Claim, worst_claim
from ._evidence import Evidence
from ._reruns import matching

# Losses are compared as logarithms down to this part of the outputs' scale, where rounding is below a ten thousandth.
_FLOOR = 2e-11
# How finely a record has to be known to agree: to this of the loss, and of how far the weights have moved.
_RESOLUTION = 3e-3
# A rerun reproduces a record that it is this near to: a part of what an honest run is off by, between two limits.
_REPRODUCED, _LEAST, _MOST = 0.1, 1e-5, 2e-3
# An honest run made elsewhere is off by twice what the replicate is off by; at worst by five times that.
_TWICE, _ELSEWHERE = 2.0, 5.0
# Two evaluations of one network, compiled in two programs.
_ROUNDINGS = 100.0
_EPSILON = float(np.finfo(float).eps)
_TINY = float(np.finfo(float).tiny)
_LOSSES = {"train_loss": "training loss", "test_loss": "test loss"}


def record_facts(evidence: Evidence) -> tuple[Check, ...]:
    """What the record of a flow has to be before anything is made of it: finite, and a run over time."""
    data, times = evidence.trajectory.data, evidence.recorded_times
    losses = [data[name].to_numpy() for name in _LOSSES if name in data]
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
    )


def _arrays(model: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]


def record_claims(evidence: Evidence) -> tuple[Claim, ...]:
    """The stored weights against the record at their times; for flows every save and the last weights against two reruns.

    Made once for all theorems.
    """
    return evidence.once("claims about the record", lambda: _record_claims(evidence))


def _record_claims(evidence: Evidence) -> tuple[Claim, ...]:
    claims = [_stored_weights(evidence, losses) for losses in _recorded_losses(evidence)]
    if not evidence.is_continuous:
        return tuple(claims)
    reproduced = _same_run(evidence)
    claims += [_against_reruns(evidence, losses, reproduced) for losses in _recorded_losses(evidence)]
    claims.append(_last_weights(evidence, reproduced))
    if evidence.never_ascends:
        claims.append(_no_rise(evidence))
    return tuple(claims)


def start_claims(evidence: Evidence) -> tuple[Claim, ...]:
    """The first weights against the record of the start alone."""
    return tuple(_stored_weights(evidence, losses, ends=1) for losses in _recorded_losses(evidence))


def what_is_compared(evidence: Evidence) -> str:
    """A sentence: what of the record was compared with what, and what was not."""
    if not evidence.is_continuous:
        return "Compared: losses at both ends with the stored weights. Not certified: the steps between, metrics."
    rtol = evidence.flow_run.settings["rtol"]
    how = "reproduced by a rerun with its settings" if _same_run(evidence) else "NOT reproduced by a rerun"
    ended = "" if _same_run(evidence) else " how the run ended,"
    return (
        f"The theorem is tested on a rerun at rtol {rtol:.2g}, whatever the record says of its own. Compared with reruns: "
        f"losses at all {len(evidence.recorded_times)} saves, the last weights; the record is {how}. Not certified:{ended} "
        f"metrics that no theorem reads, step counts."
    )


@dataclasses.dataclass(frozen=True)
class _Losses:
    """One recorded loss. **Attributes:** `name`: its variable; `x`, `y`: the data; `minimum`: its infimum over outputs;
    `floor`: the excess below which nothing is compared; `scale` of the outputs."""

    name: str
    x: Any
    y: Any
    minimum: float
    floor: float
    scale: float

    def logs(self, run: Trajectory) -> np.ndarray:
        """log(L - L* + floor) as a run holds it, at its own times."""
        return self.log(run.data[self.name].to_numpy())

    def log(self, values: np.ndarray) -> np.ndarray:
        """log(L - L* + floor)."""
        return np.log(np.maximum(values - self.minimum, 0.0) + self.floor)

    def rounding(self, logs: np.ndarray) -> np.ndarray:
        """The error of these logarithms from the last digits of the outputs."""
        return _ROUNDINGS * _EPSILON * (1 + self.scale * np.exp(-logs / 2))


def _recorded_losses(evidence: Evidence) -> list[_Losses]:
    """Those that the record has, the training loss first."""
    return evidence.once("recorded losses", lambda: _make_losses(evidence))


def _make_losses(evidence: Evidence) -> list[_Losses]:
    system, problem = evidence.system, evidence.system.problem
    data: list[tuple[str, Any, Any]] = [("train_loss", problem.x_train, problem.y_train)]
    if problem.x_test is not None and "test_loss" in evidence.trajectory.data:
        data.append(("test_loss", problem.x_test, problem.y_test))
    found = []
    for name, x, y in data:
        parts = (evidence.system.outputs(evidence.start, x), y, _cancelled(evidence, x))
        scale = sum(float(np.sqrt(np.mean(np.asarray(part) ** 2))) for part in parts) + _TINY**0.25
        minimum = float(system.loss.minimum(y))
        found.append(_Losses(name, x, y, minimum, (_FLOOR * scale) ** 2 / 2, scale))
    return found


def _cancelled(evidence: Evidence, x: Any) -> Any:
    """J (xi w) with random signs xi, (N, C): the size of the terms that make up the outputs, however they cancel."""
    signs = np.random.default_rng(0)
    changes = jax.tree.map(lambda w: w * signs.choice([-1.0, 1.0], w.shape), evidence.start)
    return evidence.system.tangent(evidence.start, x).jvp(changes)


def _stored_weights(evidence: Evidence, losses: _Losses, ends: int = 2) -> Claim:
    """One forward pass at each stored state against the record at that time."""
    data = evidence.trajectory.data[losses.name].to_numpy()
    loss: AbstractLoss = evidence.system.loss
    stored = ((evidence.start, 0, "at the start"), (evidence.end, -1, "at the end"))[:ends]
    passes = [float(loss.value(evidence.system.outputs(weights, losses.x), losses.y)) for weights, _, _ in stored]
    recorded, expected = losses.log(data[[at for _, at, _ in stored]]), losses.log(np.asarray(passes))
    off = np.abs(recorded - expected)
    off = np.where(np.isnan(off), np.inf, off)
    error = losses.rounding(expected)
    name = f"the {_LOSSES[losses.name]} is that of the stored weights (log)"
    where = [place for _, _, place in stored]
    resolution = np.full(len(off), _RESOLUTION)
    return worst_claim(name, recorded, expected, -off, error, error, resolution, where, every=True)


def _same_run(evidence: Evidence) -> bool:
    """Whether the replicate saved at the same times and ended as the record did."""

    def compare() -> bool:
        again, record = evidence.replicate, evidence.trajectory
        if again is None or again.result.code != record.result.code:
            return False
        times = again.data.time.to_numpy()
        same = len(times) == len(evidence.recorded_times) and bool(
            np.all(matching(times, evidence.recorded_times) >= 0)
        )
        return same and all(
            bool(np.all(off <= allowed))
            for off, allowed in (_reproduction(evidence, one) for one in _recorded_losses(evidence))
        )

    return evidence.once("the replicate reproduces the record", compare)


def _reproduction(evidence: Evidence, losses: _Losses) -> tuple[np.ndarray, np.ndarray]:
    """How far the record is from the replicate, save by save, and how far it may be."""
    assert evidence.replicate is not None
    again, record = losses.logs(evidence.replicate), losses.logs(evidence.trajectory)
    reference = losses.logs(evidence.flow_run)
    honest = _growing(evidence, losses)[matching(evidence.recorded_times, evidence.times)]
    allowed = np.clip(_REPRODUCED * honest, _LEAST, _MOST)
    return np.abs(record - again), allowed + losses.rounding(
        reference[matching(evidence.recorded_times, evidence.times)]
    )


def _growing(evidence: Evidence, losses: _Losses) -> np.ndarray:
    """What an honest run is off by at the reference's times: the largest difference of both reruns so far."""
    index, own = evidence.common
    if evidence.replicate is None:
        return np.full(len(evidence.times), np.nan)
    return evidence.growing(np.abs(losses.logs(evidence.replicate)[own] - losses.logs(evidence.flow_run)[index]))


def _against_reruns(evidence: Evidence, losses: _Losses, reproduced: bool) -> Claim:
    """Every saved loss: reproduced by the replicate, or else against the reference."""
    what = _LOSSES[losses.name]
    where = [f"at t = {time:.4g}" for time in evidence.recorded_times]
    record = losses.logs(evidence.trajectory)
    if reproduced:
        off, allowed = _reproduction(evidence, losses)
        name, resolution = f"a rerun with its settings gives every {what} (log)", np.full(len(off), np.inf)
        expected = record - off
        return worst_claim(name, record, expected, -off, allowed, allowed, resolution, where, every=True)
    at = matching(evidence.recorded_times, evidence.times)
    expected = losses.logs(evidence.flow_run)[at]
    honest, rounding = _growing(evidence, losses), losses.rounding(expected)
    tolerance = _TWICE * honest[at] + rounding
    error_bound = _ELSEWHERE * np.maximum(honest[-1], evidence.tolerance.max()) + rounding
    off, resolution = np.abs(record - expected), np.full(len(at), _RESOLUTION)
    name = f"a rerun at another tolerance gives every {what} (log)"
    return worst_claim(name, record, expected, -off, tolerance, error_bound, resolution, where, every=True)


def _last_weights(evidence: Evidence, reproduced: bool) -> Claim:
    """The stored last weights against those of the reruns, over how far they have moved."""
    record, flow, again = evidence.end, evidence.flow_end, evidence.replicated_end
    moved = max(float(tree_norm(tree_subtract(flow, evidence.start))), _EPSILON * float(tree_norm(flow)), _TINY)
    rounding = _ROUNDINGS * _EPSILON * float(tree_norm(flow)) / moved
    honest = np.nan if again is None else float(tree_norm(tree_subtract(again, flow))) / moved
    where = "at the end"
    if reproduced and again is not None:
        off = float(tree_norm(tree_subtract(record, again))) / moved
        allowed = float(np.clip(_REPRODUCED * honest, _LEAST, _MOST)) + rounding
        if off <= allowed:
            name = "a rerun with its settings gives the last weights (over movement)"
            return Claim(name, off, 0.0, -off, allowed, allowed, np.inf, where)
    off = float(tree_norm(tree_subtract(record, flow))) / moved
    name = "a rerun at another tolerance gives the last weights (over movement)"
    tolerance, worst = _TWICE * honest + rounding, _ELSEWHERE * max(honest, float(evidence.tolerance.max())) + rounding
    return Claim(name, off, 0.0, -off, tolerance, worst, _RESOLUTION, where)


def _no_rise(evidence: Evidence) -> Claim:
    """The recorded loss against the lowest so far, for flows along which it cannot rise."""
    losses = _recorded_losses(evidence)[0]
    record = losses.logs(evidence.trajectory)
    at = matching(evidence.recorded_times, evidence.times)
    lowest = np.minimum.accumulate(record)[:-1]
    fallen = lowest - record[1:]
    rounding = losses.rounding(losses.logs(evidence.flow_run)[at])[1:]
    honest = _growing(evidence, losses)
    error = 2 * honest[at][1:] + rounding  # of two saves
    worst = _ELSEWHERE * np.maximum(honest[-1], evidence.tolerance.max()) + rounding
    where = [f"at t = {time:.4g}" for time in evidence.recorded_times[1:]]
    # Agreement with reruns tells the rest: here only a rise beyond what an honest run shows counts.
    resolution = np.full(len(error), np.inf)
    name = "no save is above the lowest before it (log)"
    return worst_claim(name, record[1:], lowest, fallen, error, worst, resolution, where, every=True)
