"""The hypothesis that the Jacobian is continuous along a run: that no sample stays on a kink of an activation."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._core import tree_size
from ..geometry import Snapshot, System
from ..metrics import AbstractMetric, Variable
from ..models import kinked_activations
from ._claim import Check
from ._evidence import Evidence
from ._hypotheses import is_linear
from ._reruns import spread_over
from ._sliding import Arrivals, Judgement, judge, next_arrivals

NAME = "J is continuous along the run (no sample stays on a kink)"

# If samples stay on kinks, steps become as short as the tolerance. A loose one is enough to see that they stay.
_RTOL = 5e-3
# The number of states of the repeated run in a round, beside its start. It is fixed, so that the run is compiled once.
_STATES = 64
_ROUNDS = 4
_ARRIVALS = 16  # the number of arrivals considered from each state
_LARGEST_STORE = 2**26  # numbers: the weights at all states together
# Where the next round looks, in units of the time from a state to an arrival: shortly before an unclear arrival, where a linear
# forecast is good, and after one that stays.
_BEFORE, _AFTER = 0.9, 2.0
# A sample that is still on its kink comes back to it within this share of the time for which it has been there.
_STILL = 0.1


def continuity(evidence: Evidence) -> Check:
    """Whether J is continuous at almost every time of the run, so that f' = J w' there (docs/theorems/kinks.md).

    For models without kinks, and models linear in the weights that move, it is a fact. For other models it is measured on a
    repeated run. It is not met if a sample is seen to stay on a kink, and met (as an estimate) if every kink that any state of
    that run reaches is passed. Otherwise it is unclear, also for models that do not declare their kinks.
    """
    model = evidence.trajectory.initial_model
    if is_linear(evidence.system, evidence.start):
        return Check.fact(NAME, True, "the model is linear in the weights that move")
    kinked = evidence.system.has_kinks
    if kinked is False:
        return Check.fact(NAME, True, f"{type(model).__name__} has no kinks")
    if kinked is None:
        return Check.unknown(
            NAME,
            f"not known of {type(model).__name__}; a smooth model says so by activations = (), an "
            "activation of yours by Activation.from_function(function, kinks=())",
        )
    activation = ", ".join(kinked_activations(model))
    if not evidence.system.problem.has_samples:
        return Check.unknown(NAME, f"{activation} has kinks, which are not looked for in residuals")
    if not hasattr(model, "pre_activations"):
        return Check.unknown(
            NAME, f"{activation} has kinks, and {type(model).__name__} no pre_activations(x) to see them"
        )
    if tree_size(evidence.start) * (_STATES + 2) > _LARGEST_STORE:
        return Check.unknown(NAME, f"{activation} has kinks, and the weights are too many to look at {_STATES} states")
    return evidence.once("continuity", lambda: _measured(evidence, activation))


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """A stretch of flow time whose arrivals at kinks are not judged yet.

    **Attributes:**

    - `begin`, `end`: its flow times.
    - `doubt`: why it is considered, in words.
    - `stayed`: the pair (sample, unit) that stays on a kink according to a state before the stretch, or None.
    - `since`: for how long the pair has stayed when the stretch begins.
    """

    begin: float
    end: float
    doubt: str = ""
    stayed: tuple[int, int] | None = None
    since: float = 0.0


def _measured(evidence: Evidence, activation: str) -> Check:
    """The check on the states of repeated runs. Each round looks closer at stretches that the last one left in doubt.

    A pair counts as staying on its kink if one state predicts that it will stay there and a later state finds that it does.
    Errors of the repeated run may exchange two arrivals at almost the same time, so one state alone is not enough.
    """
    times = _first_times(evidence)
    stretches = [_Stretch(*ends) for ends in itertools.pairwise(times)]
    num_states, brief = 0, ""
    for _ in range(_ROUNDS):
        states = _states(evidence, np.array([stretch.begin for stretch in stretches]))
        if states is None:
            return Check.unknown(NAME, f"{activation} has kinks, and the run could not be repeated")
        again: list[_Stretch] = []
        for stretch in stretches:
            num_states += 1
            arrivals = _arrivals(evidence, stretch, states[stretch.begin])
            judgement = judge(arrivals, stretch.end - stretch.begin)
            for index in judgement.stays:
                known = [one for one in (stretch, *again) if one.stayed == _pair(arrivals, index)]
                if any(arrivals.wait[index] <= _STILL * (stretch.begin - one.begin + one.since) for one in known):
                    remark = _words(evidence, activation, stretch, arrivals, index, "stays")
                    return Check.fact(NAME, False, remark, rigorous=False)
            brief = brief or ("" if stretch.stayed is None else stretch.doubt)
            again += _split(evidence, activation, stretch, arrivals, judgement)
        if not again:
            break
        if len(again) > _STATES:
            return Check.unknown(NAME, again[0].doubt)
        stretches = again
    else:
        return Check.unknown(NAME, stretches[0].doubt)
    if brief:
        return Check.unknown(NAME, brief)
    remark = f"every kink of {activation} that {num_states} states of a repeated run come to is passed"
    return Check.fact(NAME, True, remark, rigorous=False)


def _arrivals(evidence: Evidence, stretch: _Stretch, weights: PyTree) -> Arrivals:
    time, length = jnp.asarray(stretch.begin), jnp.asarray(stretch.end - stretch.begin)
    flow = evidence.trajectory.flow
    return jax.device_get(next_arrivals(time, weights, length, evidence.system, flow, _ARRIVALS))


def _pair(arrivals: Arrivals, index: int) -> tuple[int, int]:
    return int(arrivals.samples[index]), int(arrivals.units[index])


def _split(
    evidence: Evidence, activation: str, stretch: _Stretch, arrivals: Arrivals, judgement: Judgement
) -> list[_Stretch]:
    """The parts of a stretch that are still in doubt.

    They begin shortly before each unclear arrival, shortly after the first one that stays, and at the last one if there were
    too many.
    """
    begin, end = stretch.begin, stretch.end
    found: list[_Stretch] = []
    for index in judgement.unclear:
        doubt = _words(evidence, activation, stretch, arrivals, index, "may stay")
        found.append(_Stretch(begin + _BEFORE * float(arrivals.wait[index]), end, doubt))
    for index in judgement.stays[:1]:
        doubt = _words(evidence, activation, stretch, arrivals, index, "stays, if only for a moment,")
        wait = float(arrivals.wait[index])
        after = min(begin + _AFTER * wait, (begin + wait + end) / 2)
        found.append(_Stretch(after, end, doubt, _pair(arrivals, index), after - begin - wait))
    if arrivals.count > _ARRIVALS:
        last = begin + _BEFORE * float(arrivals.wait[-1])
        found.append(_Stretch(last, end, f"{arrivals.count} kinks are met from t = {begin:.4g} to {end:.4g}"))
    found.sort(key=lambda one: one.begin)
    ends = [*(one.begin for one in found[1:]), end]
    return [dataclasses.replace(one, end=last) for one, last in zip(found, ends[: len(found)], strict=True)]


def _words(evidence: Evidence, activation: str, stretch: _Stretch, arrivals: Arrivals, index: int, verb: str) -> str:
    """A clause with the sample, the unit, the time, and z' on both sides of the kink."""
    model = evidence.trajectory.initial_model
    shapes = jax.eval_shape(model.pre_activations, evidence.system.problem.x_train[0])
    units = [
        f"unit {unit} of layer {layer}"
        for layer, (one, z) in enumerate(zip(model.activations, shapes, strict=True), start=1)
        for _ in one.kinks or ()
        for unit in range(z.shape[0])
    ]
    return (
        f"sample {int(arrivals.samples[index])} {verb} on a kink of {activation} in {units[int(arrivals.units[index])]} from "
        f"t = {stretch.begin + float(arrivals.wait[index]):.4g} on: z' = {float(arrivals.above[index]):.3g} above it, "
        f"{float(arrivals.below[index]):.3g} below"
    )


class _Weights(AbstractMetric):
    """A metric that records all weights that move, in one array."""

    def variables(self, system: System) -> tuple[Variable, ...]:
        return (Variable("weights", "weights that move", "weights", "docs/theorems/kinks.md", ("weight",)),)

    def evaluate(self, snapshot: Snapshot, memory: PyTree) -> dict[str, Float[Array, "..."]]:
        return {"weights": ravel_pytree(snapshot.weights)[0]}


def _first_times(evidence: Evidence) -> np.ndarray:
    """The start, `_STATES` times inside the run, and its end. Half of them are spread over the saves, half over flow time."""
    return _filled(spread_over(evidence.recorded_times, _STATES // 2), float(evidence.recorded_times[-1]))


def _filled(times: np.ndarray, end: float) -> np.ndarray:
    """`times`, 0 and `end`, filled up to `_STATES` + 2 times with the middles of the longest gaps."""
    times = np.union1d(times, [0.0, end])
    while len(times) < _STATES + 2:
        longest = int(np.argmax(np.diff(times)))
        times = np.insert(times, longest + 1, (times[longest] + times[longest + 1]) / 2)
    return times


def _states(evidence: Evidence, times: np.ndarray) -> dict[float, PyTree] | None:
    """The weights of a repeated run at these times; None if it cannot be repeated."""
    unravel = ravel_pytree(evidence.start)[1]
    every = _filled(times, float(evidence.recorded_times[-1]))
    again = evidence.repeat(every, (_Weights(),), _RTOL)
    if again is None:
        return None
    return {
        time: unravel(weights) for time, weights in zip(every.tolist(), again.data["weights"].to_numpy(), strict=True)
    }
