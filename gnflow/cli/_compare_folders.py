"""What `gnflow compare` does: print tables of several runs, and write their numbers and a figure."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._core import RunFolderError, as_path, cannot_write, make_writable, shown
from ..plots import comparison_figure, save
from ..sweeps import error_functionals
from ._columns import MOST_ERRORS, clipped, columns_under, error_heading, width_of
from ._compared_runs import FLOW_TIME, STEPS, STEPS_OF_SIZE, Group, read_groups, settings_by_group
from ._comparison import LOSSES, Comparison, by_problem, end_of
from ._failures import Failures
from ._own_parts import import_for

_WIDTH = 80  # characters of a line
_SHORTEST_NAME = 9
_MOST_DIFFERENCES = 25  # lines; configuration.csv has all
# Headings and formats of the lowest losses.
_BEST = {
    "best_validation_loss": ("best", "valid.", ".2e"),
    "best_validation_loss_time": ("at", "time", ".3g"),
    "test_loss_at_best_validation": ("test", "there", ".2e"),
    "best_test_loss": ("best", "test", ".2e"),
    "best_test_loss_time": ("at", "time", ".3g"),
}
_TITLES = {"train_loss": "training loss", "validation_loss": "validation loss", "test_loss": "test loss"}
_CLOCKS = {
    FLOW_TIME: "flow time, in each flow's own unit",
    STEPS_OF_SIZE: "steps times step size, which is flow time",
    STEPS: "the number of steps of an optimiser",
}


def compare_folders(
    folders: Sequence[str],
    only: str | None,
    out: str | None,
    *,
    imports: Sequence[str] = (),
    accept_digests: Sequence[str] = (),
) -> int:
    """Print the comparison, and write it to `out` if that is given. The arguments are those of the command line.

    **Returns:** the exit code, 1 if a figure could not be drawn.
    """
    import_for([as_path(folder, "the folder", RunFolderError) for folder in folders], imports, accept_digests)
    groups = read_groups(folders, only)
    target = None if out is None else as_path(out, "--out", RunFolderError)
    if target is not None:
        make_writable(target)
    parts, notes = by_problem(groups)
    comparisons = [Comparison.of(part) for part in parts]
    differences = settings_by_group(groups)
    failures = Failures()
    written = [] if target is None else _write(target, comparisons, groups, differences, failures)
    lines = [f"{sum(len(group.runs) for group in groups)} runs of {len(folders)} folders"]
    if len(comparisons) > 1:
        lines += [
            f"They are on {len(comparisons)} different problems: losses of one are not to be compared with",
            "those of another.",
        ]
    for number, comparison in enumerate(comparisons, start=1):
        lines += ["", *_heading(comparison, number if len(comparisons) > 1 else None), *_tables(comparison)]
    lines += ["", "differences of configuration", *_differences(groups, differences)]
    notes += [f"{group.number} {group.name}, seed {run.seed}: {run.failure}" for group, run in _failed(groups)]
    if notes:
        lines += ["", *(line for note in notes for line in _wrapped(note))]
    lines += [f"\n{len(written)} files in {target}"] if target is not None else []
    print("\n".join(lines))
    return 1 if failures.names else 0


def _failed(groups: Sequence[Group]) -> list[tuple[Group, Any]]:
    return [(group, run) for group in groups for run in group.runs if run.failure is not None]


def _heading(comparison: Comparison, number: int | None) -> list[str]:
    """What the problem is, in words."""
    settings = comparison.groups[0].runs[0].description.settings
    arrays = {name: settings.get(f"problem.{name}") for name in ("x_train", "y_train", "x_test")}
    known = [settings.get("problem.name"), settings.get("problem.loss")]
    # Points of the terms of a residual problem have no one shape.
    shapes = {name: str(text).partition(" ")[2] for name, text in arrays.items() if text is not None}
    known += [f"{name} {shape}" for name, shape in shapes.items() if shape]
    count = len(comparison.groups[0].problems)
    if count > 1:
        known.append(f"{count} draws, one for each seed")
    words = ", ".join(str(word) for word in known if word is not None)
    return _wrapped(f"problem{'' if number is None else f' {number}'}: {words}")


def _tables(comparison: Comparison) -> list[str]:
    """The ends of the runs, losses at common times, and times at common losses."""
    groups = comparison.groups
    clocks = {clock for group in groups for clock in _clocks(group)}
    lines = ["", *_under_names(groups, *_ends(comparison))]
    if comparison.errors:
        rows = [[_short(_last(group, name), ".2e") for name in comparison.errors] for group in groups]
        headings = [error_heading(name) for name in comparison.errors]
        lines += ["", "error functionals at the end"]
        for first in range(0, len(headings), MOST_ERRORS):
            part = slice(first, first + MOST_ERRORS)
            lines += _under_names(groups, headings[part], [row[part] for row in rows])
    lines += ["", *_wrapped("clock: " + "; ".join(f"{name}: {_CLOCKS[name]}" for name in _CLOCKS if name in clocks))]
    if comparison.times.size:
        headings = [("at time", _short(time)) for time in comparison.times]
        for name, values in comparison.at_times.items():
            lines += ["", f"{_TITLES.get(name, name)} at a common time (-: after the end)"]
            lines += _under_names(groups, headings, [[_short(value, ".2e") for value in row] for row in values])
    if comparison.levels.size:
        headings = [("at loss", _short(level, ".1e")) for level in comparison.levels]
        lines += ["", "time at which the training loss first was (-: it was not)"]
        lines += _under_names(groups, headings, [[_short(value) for value in row] for row in comparison.time_to])
        for name, values in comparison.at_levels.items():
            lines += ["", f"{_TITLES.get(name, name)} where the training loss first was"]
            lines += _under_names(groups, headings, [[_short(value, ".2e") for value in row] for row in values])
    if comparison.best:
        lines += ["", "lowest losses along the run (best test: selected on the test set)"]
        rows = [
            [_short(value, _BEST[name][2]) for name, value in zip(comparison.best, row, strict=True)]
            for row in _rows(comparison)
        ]
        lines += _under_names(groups, [_BEST[name][:2] for name in comparison.best], rows)
    return lines


def _rows(comparison: Comparison) -> np.ndarray:
    """The lowest losses of each group."""
    return np.stack(list(comparison.best.values()), axis=1)


def _ends(comparison: Comparison) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """The headings and the rows of the table of the ends."""
    headings = [("", "clock"), ("", "end"), ("", "steps"), ("train", "loss"), ("test", "loss"), ("run", "[s]")]
    rows = []
    for group in comparison.groups:
        steps = np.median([float(run.stats.get("num_steps") or np.nan) for run in group.runs])
        losses = [_last(group, name) for name in ("train_loss", "test_loss")]
        seconds = float(np.median([run.run_seconds for run in group.runs]))
        cells = [_short(end_of(group)), _short(steps, ".0f"), *(_short(loss, ".2e") for loss in losses)]
        rows.append([" ".join(_clocks(group)), *cells, f"{seconds:.1f}"])
    if any(len(group.runs) > 1 for group in comparison.groups):
        headings.insert(0, ("", "seeds"))
        rows = [[str(len(group.runs)), *row] for group, row in zip(comparison.groups, rows, strict=True)]
    return headings, rows


def _under_names(
    groups: Sequence[Group], headings: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]
) -> list[str]:
    """A table with the numbers and the names of groups before its cells. Long names are cut in the middle."""
    are_texts = [False, True, *(heading == ("", "clock") for heading in headings)]

    def made(longest: int) -> list[str]:
        cells = [[str(g.number), clipped(g.name, longest), *row] for g, row in zip(groups, rows, strict=True)]
        return columns_under([("", "#"), ("", "run"), *headings], cells, are_texts, " ")

    return made(max(_SHORTEST_NAME, _WIDTH - width_of(made(1)) + len("run")))


def _differences(groups: Sequence[Group], differences: dict[str, list[Any]]) -> list[str]:
    lines = []
    for name, values in differences.items():
        numbers: dict[str, list[int]] = {}
        for group, value in zip(groups, values, strict=True):
            numbers.setdefault("-" if value is None else shown(value), []).append(group.number)
        words = "; ".join(f"{value} (run {_ranges(those)})" for value, those in numbers.items())
        lines += _wrapped(f"{name}: {words}")
    if len(lines) > _MOST_DIFFERENCES:
        lines = [*lines[:_MOST_DIFFERENCES], f"... and {len(lines) - _MOST_DIFFERENCES} more lines"]
    return lines or ["none"]


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as text: "1-3, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _write(
    target: Path,
    comparisons: Sequence[Comparison],
    groups: Sequence[Group],
    differences: dict[str, list[Any]],
    failures: Failures,
) -> list[Path]:
    """Write the numbers as CSV, in full precision, and a figure for each problem. **Returns:** the files."""
    import pandas as pd

    tables = {
        "comparison": [row for number, one in enumerate(comparisons, 1) for row in _numbers(number, one)],
        "curves": [row for group in groups for row in _curves(group)],
        "configuration": [
            {
                "setting": name,
                **{f"{group.number} {group.name}": value for group, value in zip(groups, values, strict=True)},
            }
            for name, values in differences.items()
        ],
    }
    written = []
    try:
        for name, rows in tables.items():
            written.append(target / f"{name}.csv")
            pd.DataFrame(rows).to_csv(written[-1], index=False, na_rep="nan", lineterminator="\n")
    except OSError as error:
        raise cannot_write(written[-1], error) from error
    for number, comparison in enumerate(comparisons, start=1):
        name = "comparison" if len(comparisons) == 1 else f"comparison-problem-{number}"
        try:
            runs = {f"{group.number} {group.name}": [run.data for run in group.runs] for group in comparison.groups}
            written.append(save(comparison_figure(runs), target / f"{name}.png"))
        except Exception as error:  # a figure that fails must not cost the tables
            failures.tell(name, error)
    return written


def _numbers(number: int, comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each group and quantity."""
    rows: list[dict[str, Any]] = []
    for place, group in enumerate(comparison.groups):
        head = {"problem": number, "run": group.number, "name": group.name, "seeds": len(group.runs)}
        head["clock"] = " ".join(_clocks(group))
        for name in (*LOSSES, *comparison.errors):
            rows.append({**head, "quantity": f"{name} at the end", "at": end_of(group), "value": _last(group, name)})
        for name, values in comparison.at_times.items():
            pairs = zip(comparison.times, values[place], strict=True)
            rows += [{**head, "quantity": f"{name} at time", "at": time, "value": value} for time, value in pairs]
        rows += [
            {**head, "quantity": name, "at": np.nan, "value": values[place]} for name, values in comparison.best.items()
        ]
        found = {f"{name} at train_loss": values for name, values in comparison.at_levels.items()}
        for name, values in {"time to train_loss": comparison.time_to, **found}.items():
            pairs = zip(comparison.levels, values[place], strict=True)
            rows += [{**head, "quantity": name, "at": level, "value": value} for level, value in pairs]
    return rows


def _curves(group: Group) -> list[dict[str, Any]]:
    """A row for each saved time of each run."""
    rows = []
    for run in group.runs:
        head = {"run": group.number, "name": group.name, "seed": run.seed, "clock": run.clock}
        losses = {name: run.data[name].to_numpy() for name in LOSSES if name in run.data}
        losses |= error_functionals(run.data)
        for place, time in enumerate(run.times):
            rows.append({**head, "time": time, **{name: values[place] for name, values in losses.items()}})
    return rows


def _clocks(group: Group) -> list[str]:
    return sorted({run.clock for run in group.runs})


def _last(group: Group, name: str) -> float:
    """The last value of a loss or an error, the median over the seeds; nan if a run has none."""
    found = [float(run.data[name].to_numpy()[-1]) if name in run.data else np.nan for run in group.runs]
    return float(np.median(found))


def _short(value: float, digits: str = ".3g") -> str:
    return format(value, digits) if np.isfinite(value) else "-"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
