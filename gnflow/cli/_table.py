"""The table that `gnflow run` prints, with a line for each run."""

from collections.abc import Sequence

from ..sweeps import Row
from ._columns import MOST_ERRORS, clipped, columns_under, error_heading, width_of

_WIDTH = 80  # characters of a line; summary.csv has everything, in full precision
_SHOWN_LINES = 4
_NEAR = 0.1  # a damped flow whose velocity is as near to that of gradient flow is said to be one
_SHORTEST_FLOW = 9  # least number of characters of a flow's name that must be cut
# Two lines for each heading. Losses and times have the digits that the progress bar shows.
_HEADINGS = {
    "variant": ("", "variant"),
    "flow": ("", "flow"),
    "seed": ("", "seed"),
    "result": ("", "result"),
    "num_steps": ("", "steps"),
    "flow_time": ("flow", "time"),
    "train_loss": ("train", "loss"),
    "test_loss": ("test", "loss"),
    "kernel_distance": ("kernel", "dist."),
    "run_seconds": ("run", "[s]"),
}
# One of these sets of columns, where the runs have it. Beside validation data the lowest test loss is not shown, because nobody
# should choose by it.
_BEST = (
    {
        "best_validation_loss": ("best", "valid."),
        "best_validation_loss_time": ("at", "time"),
        "test_loss_at_best_validation": ("test", "there"),
    },
    {"best_test_loss": ("best", "test*"), "best_test_loss_time": ("at", "time")},
)
_OF_BEST = {name: heading for columns in _BEST for name, heading in columns.items()}
_ALL_HEADINGS = {**_HEADINGS, **_OF_BEST}
_ERROR = "errors."  # before the names of error functionals
_FORMATS = {
    "flow_time": ".3g",
    "train_loss": ".2e",
    "test_loss": ".2e",
    "kernel_distance": ".2g",
    "run_seconds": ".1f",
    **{name: ".3g" if name.endswith("_time") else ".2e" for name in _OF_BEST},
}
_TEXTS = ("variant", "flow", "result")
_OFTEN_THE_SAME = ("variant", "seed", "result")
_OF_GROUPS = ("variant", "seed")


def format_table(rows: Sequence[Row]) -> str:
    """The rows as aligned text of at most 80 columns, followed by the messages of failed runs and other notes.

    If there is no room for all columns, those with the same value in every row move to a line above. If that is not enough,
    the lowest validation or test losses, or the error functionals of a residual problem, have a table of their own, and rows of
    one variant and seed are grouped under a line that names them.
    """
    errors = [f"{_ERROR}{name}" for name in dict.fromkeys(name for row in rows for name in row.errors)]
    unmeasured = [
        name for name in ("test_loss", "kernel_distance") if errors and all(getattr(row, name) is None for row in rows)
    ]
    columns = [name for name in _HEADINGS if name not in unmeasured]
    best = next(
        (list(names) for names in _BEST if any(getattr(row, next(iter(names))) is not None for row in rows)), []
    )
    beside = columns.index("run_seconds")
    lines = _without_groups(rows, [*columns[:beside], *errors, *columns[beside:], *best])[1]
    if width_of(lines) > _WIDTH:
        lines = _fitting(rows, columns)
        parts = [best] if best else []
        parts += [errors[first : first + MOST_ERRORS] for first in range(0, len(errors), MOST_ERRORS)]
        for part in parts:
            lines += ["", *_fitting(rows, ["variant", "flow", "seed", *part])]
    notes = [f"{row.label} failed: {row.message}" for row in rows if row.failed]
    notes += [f"{row.label}: last direction {row.direction}" for row in rows if row.is_exact is False]
    exact = sum(row.is_exact is True for row in rows)
    notes += ["* lowest test loss along the run: selected on the test set"] if "best_test_loss" in best else []
    notes += [f"last direction exact in {exact} of {len(rows)} runs"] if exact else []
    notes += _gradient_flows(rows)
    # Runs of equal content were computed once.
    compiling = sum({row.content_hash or row.label: row.compile_seconds or 0.0 for row in rows}.values())
    notes += [f"compiling took {compiling:.1f} s more"] if compiling else []
    notes += _twins(rows)
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _gradient_flows(rows: Sequence[Row]) -> list[str]:
    """Which flows damping makes gradient flow, all along each of their runs."""
    largest: dict[str, float] = {}
    for row in rows:
        if row.distance_to_gradient_flow is not None:
            name = f"{row.variant}/{row.flow}"
            largest[name] = max(largest.get(name, 0.0), row.distance_to_gradient_flow)
    lines = [
        f"{name} is gradient flow on the clock of its damping, to {distance:.1%}"
        for name, distance in largest.items()
        if distance <= _NEAR
    ]
    return _shortened(lines)


def _shortened(lines: list[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - _SHOWN_LINES
    return lines if more <= 0 else [*lines[:_SHOWN_LINES], f"... and {more} more"]


def _twins(rows: Sequence[Row]) -> list[str]:
    """Which flows of which variants were computed once, for who looks for their folders."""
    first: dict[str, Row] = {}
    pairs: dict[str, str] = {}
    for row in rows:
        other = first.setdefault(row.content_hash or row.label, row)
        if other is not row:
            pairs[f"{row.variant}/{row.flow}"] = f"{other.variant}/{other.flow}"
    lines = [f"{name} has the runs of {other}, and no folder of its own" for name, other in pairs.items()]
    return _shortened(lines)


def _without_groups(rows: Sequence[Row], columns: list[str]) -> tuple[list[str], list[str], list[str]]:
    """What is the same in every row, the lines of the table with that above it if there is no room, and its columns."""
    lines = _aligned(rows, columns)
    if width_of(lines) <= _WIDTH or not rows:
        return [], lines, columns
    same = [name for name in _OFTEN_THE_SAME if name in columns and len({getattr(row, name) for row in rows}) == 1]
    columns = [name for name in columns if name not in same]
    above = [", ".join(f"{name} {getattr(rows[0], name)}" for name in same)] if same else []
    return above, above + _aligned(rows, columns), columns


def _fitting(rows: Sequence[Row], columns: list[str]) -> list[str]:
    above, lines, columns = _without_groups(rows, columns)
    if width_of(lines) <= _WIDTH or not rows:
        return lines
    groups = [name for name in _OF_GROUPS if name in columns]
    columns = [name for name in columns if name not in groups]
    others = width_of(_aligned(rows, [name for name in columns if name != "flow"], " "))
    first, second, rule, *lines = _aligned(rows, columns, " ", max(_SHORTEST_FLOW, _WIDTH - others - 1))
    grouped: list[str] = []
    for index, row in enumerate(rows):
        named = [getattr(row, name) for name in groups]
        if groups and (index == 0 or named != [getattr(rows[index - 1], name) for name in groups]):
            grouped.append(", ".join(f"{name} {value}" for name, value in zip(groups, named, strict=True)))
        grouped.append(lines[index])
    return [*above, first, second, rule, *grouped]


def _aligned(rows: Sequence[Row], names: Sequence[str], between: str = "  ", longest: int | None = None) -> list[str]:
    """Two lines of headings, a rule, and a line for each row."""
    cells = [[_cell(row, name, longest) for name in names] for row in rows]
    return columns_under([_heading(name) for name in names], cells, [name in _TEXTS for name in names], between)


def _heading(name: str) -> tuple[str, str]:
    """The two lines of a heading."""
    return error_heading(name.removeprefix(_ERROR)) if name.startswith(_ERROR) else _ALL_HEADINGS[name]


def _cell(row: Row, name: str, longest: int | None) -> str:
    is_error = name.startswith(_ERROR)
    value = row.errors.get(name.removeprefix(_ERROR)) if is_error else getattr(row, name)
    text = "-" if value is None else format(value, ".2e" if is_error else _FORMATS.get(name, ""))
    return text if name != "flow" or longest is None else clipped(text, longest)
