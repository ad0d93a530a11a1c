"""Losses and error functionals of groups of runs at common times and at common levels."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..simulate import BEST_LOSSES, best_losses
from ..sweeps import error_functionals, time_to_level
from ._compared_runs import ComparedRun, Group

_MOST_COLUMNS = 5  # common times or levels, so that a table has at most 80 columns
_DECADES = 4
LOSSES = ("train_loss", "validation_loss", "test_loss")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Groups of runs on the same problems.

    Every number is a median over the seeds of a group. nan stands for a time after the end of a run, inf for a level that was
    not reached.

    **Attributes:**

    - `groups`: the groups.
    - `times`: common times (t,), each in the group's own clock.
    - `levels`: common training losses (l,), decreasing. The last one is the lowest that every group reached.
    - `errors`: the names of the error functionals that every run has, in the order of the first.
    - `at_times`: by name of the loss or error its values at these times (groups, t). Every run has it.
    - `time_to`: the times at which the training loss first reached each level (groups, l).
    - `at_levels`: by name of the test loss or error its values at those times (groups, l). Every run has it.
    - `best`: by the names of `gnflow.simulate.BEST_LOSSES` the lowest losses along the runs and their times (groups,); without
      those that no run has.
    """

    groups: tuple[Group, ...]
    times: np.ndarray
    levels: np.ndarray
    errors: tuple[str, ...]
    at_times: dict[str, np.ndarray]
    time_to: np.ndarray
    at_levels: dict[str, np.ndarray]
    best: dict[str, np.ndarray]

    @classmethod
    def of(cls, groups: Sequence[Group]) -> "Comparison":
        """The comparison of groups of runs on the same problems."""
        times, levels = _common_times(groups), _common_levels(groups)
        runs = [run for group in groups for run in group.runs]
        errors = tuple(name for name in error_functionals(runs[0].data) if all(name in run.data for run in runs))
        measured = [*(name for name in LOSSES if all(name in run.data for run in runs)), *errors]
        at_times = {
            name: _medians(groups, lambda run, name=name: [_value_at(run, name, time) for time in times])
            for name in measured
        }
        time_to = _medians(groups, lambda run: [_time_to(run, level) for level in levels])
        at_levels = {
            name: _medians(groups, lambda run, name=name: [_value_at(run, name, _time_to(run, at)) for at in levels])
            for name in measured
            if name in ("test_loss", *errors)
        }
        lowest = _medians(groups, lambda run: [best_losses(run.data).get(name, math.nan) for name in BEST_LOSSES])
        columns = zip(BEST_LOSSES, lowest.T, strict=True)
        best = {name: values for name, values in columns if np.any(np.isfinite(values))}
        return cls(tuple(groups), times, levels, errors, at_times, time_to, at_levels, best)


def by_problem(groups: Sequence[Group]) -> tuple[list[list[Group]], list[str]]:
    """The groups that have the same problems, together, and notes on runs that are left out.

    If there are problems that all groups have, only these are compared. Otherwise losses of groups with different problems are
    not compared.
    """
    shared = frozenset.intersection(*(group.problems for group in groups))
    if not shared:
        together: dict[frozenset[str], list[Group]] = {}
        for group in groups:
            together.setdefault(group.problems, []).append(group)
        return list(together.values()), []
    kept = [
        dataclasses.replace(group, runs=tuple(run for run in group.runs if run.description.problem in shared))
        for group in groups
    ]
    left_out = sum(len(group.runs) for group in groups) - sum(len(group.runs) for group in kept)
    note = f"{left_out} runs are left out: not every group has their problem (the same data and loss)"
    return [kept], [note] if left_out else []


def _medians(groups: Iterable[Group], numbers: Callable[[ComparedRun], list[float]]) -> np.ndarray:
    """The median over the runs of each group of several numbers."""
    with np.errstate(invalid="ignore"):  # the mean of two infinite times
        rows = [np.median(np.asarray([numbers(run) for run in group.runs]), axis=0) for group in groups]
    return np.asarray(rows)


def end_of(group: Group) -> float:
    """The clock's reading at the end of the runs, the median over the seeds."""
    return float(np.median([run.times[-1] for run in group.runs]))


def _losses(run: ComparedRun, name: str = "train_loss") -> np.ndarray:
    return run.data[name].to_numpy()


def _value_at(run: ComparedRun, name: str, time: float) -> float:
    """A loss or error at a time, interpolated linearly between saved times; nan after the end of the run.

    Of positive numbers it is the logarithm that is interpolated. An error functional may have a sign.
    """
    times, values = run.times, _losses(run, name)
    if not times[0] <= time <= times[-1]:
        return math.nan
    if name not in LOSSES and not np.all(values > 0):
        return float(np.interp(time, times, values))
    return float(np.exp(np.interp(time, times, np.log(np.maximum(values, np.finfo(float).tiny)))))


def _time_to(run: ComparedRun, level: float) -> float:
    return time_to_level(run.times, _losses(run), level)


def _common_times(groups: Sequence[Group]) -> np.ndarray:
    """Powers of ten between the first save and the second longest end, and the shortest end, where every group has a value."""
    ends = sorted(min(float(run.times[-1]) for run in group.runs) for group in groups)
    ends = [end for end in ends if end > 0]
    if not ends:
        return np.zeros(0)
    highest = math.floor(math.log10(ends[-2] if len(ends) > 1 else ends[0]))
    first = min(float(run.times[1]) for group in groups for run in group.runs if len(run.times) > 1)
    decades = [10.0**power for power in range(highest - _DECADES + 1, highest + 1) if 10.0**power >= first]
    return np.asarray(sorted({*decades, ends[0]})[-_MOST_COLUMNS:])


def _common_levels(groups: Sequence[Group]) -> np.ndarray:
    """Powers of ten between the losses at the start and the second lowest one, and the lowest that every group reached."""
    lowest = sorted(max(_lowest(run) for run in group.runs) for group in groups)
    starts = [_losses(run)[0] for group in groups for run in group.runs]
    start = min((loss for loss in starts if np.isfinite(loss)), default=math.nan)
    if not 0 < start < math.inf or not lowest[0] < start:
        return np.zeros(0)
    second = max(lowest[min(1, len(lowest) - 1)], np.finfo(float).tiny)
    first, last = math.ceil(math.log10(start)) - 1, math.ceil(math.log10(second))
    # Many decades are thinned out to the number of columns.
    step = max(1, math.ceil((first - last + 1) / _DECADES))
    levels = {10.0**power for power in range(first, last - 1, -step)}
    levels |= {lowest[-1]} if 0 < lowest[-1] < start else set()
    return np.asarray(sorted(levels, reverse=True)[:_MOST_COLUMNS])


def _lowest(run: ComparedRun) -> float:
    losses = _losses(run)
    return float(np.min(losses[np.isfinite(losses)], initial=math.inf))
