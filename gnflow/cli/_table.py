"""One line for each run: what `gnflow run` prints and writes to summary.csv."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import RunSpec
from ..simulate import Trajectory

_EXACT = "exact"
_WIDTH = 80  # characters of a line; summary.csv has no such bound, and everything in full precision
_SHORTEST_FLOW = 9  # characters that the name of a flow has at the least, where it must be cut
# In two lines each. Losses and times have the digits that the progress bar shows.
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
_FORMATS = {
    "flow_time": ".3g",
    "train_loss": ".2e",
    "test_loss": ".2e",
    "kernel_distance": ".2g",
    "run_seconds": ".1f",
}
_TEXTS = ("variant", "flow", "result")
_OFTEN_THE_SAME = ("variant", "seed", "result")
_OF_GROUPS = ("variant", "seed")


@dataclasses.dataclass(frozen=True)
class Row:
    """How one run ended; None for what it does not have."""

    variant: str
    flow: str
    seed: int
    result: str
    failed: bool
    num_steps: int | None = None
    flow_time: float | None = None
    train_loss: float | None = None
    test_loss: float | None = None
    kernel_distance: float | None = None
    direction: str | None = None
    wall_seconds: float | None = None
    compile_seconds: float | None = None
    message: str = ""
    content_hash: str = ""

    @classmethod
    def of(cls, spec: RunSpec, trajectory: Trajectory) -> "Row":
        """The row of a run that has a trajectory, complete or not."""
        data = trajectory.data
        # An optimiser has no flow time: what stands there are its steps, which have a column.
        in_flow_time = "time" in data.coords or data["flow_time"].attrs["units"] != "steps"
        last = {
            name: float(data[name].to_numpy()[-1])
            for name in data.variables
            if data[name].dims == data["train_loss"].dims
        }
        return cls(
            spec.variant,
            spec.flow_name,
            spec.seed,
            str(trajectory.result.code),
            trajectory.result.failed,
            num_steps=trajectory.stats["num_steps"],
            flow_time=last.get("time", last.get("flow_time")) if in_flow_time else None,
            train_loss=last["train_loss"],
            test_loss=last.get("test_loss"),
            kernel_distance=last.get("kernel_distance"),
            direction=_direction(trajectory.stats),
            wall_seconds=trajectory.stats["wall_seconds"],
            compile_seconds=trajectory.stats.get("compile_seconds"),  # not of runs by earlier versions
            message=trajectory.result.message,
            content_hash=spec.content_hash(),
        )

    @classmethod
    def of_error(cls, spec: RunSpec, error: Exception) -> "Row":
        """The row of a run that gave no trajectory."""
        message = f"{type(error).__name__}: {error}"
        return cls(
            spec.variant,
            spec.flow_name,
            spec.seed,
            "error",
            failed=True,
            message=message,
            content_hash=spec.content_hash(),
        )

    @property
    def label(self) -> str:
        """variant/flow/seed-k."""
        return f"{self.variant}/{self.flow}/seed-{self.seed}"

    @property
    def run_seconds(self) -> float | None:
        """Wall time without compiling; all of it where that is not known."""
        return None if self.wall_seconds is None else self.wall_seconds - (self.compile_seconds or 0.0)

    @classmethod
    def columns(cls) -> list[str]:
        """The names of the columns of summary.csv."""
        return [field.name for field in dataclasses.fields(cls)]

    def values(self) -> dict[str, Any]:
        """The row by column, in full precision."""
        return dataclasses.asdict(self)


def format_table(rows: Sequence[Row]) -> str:
    """The rows as aligned text of at most 80 columns, with the messages of failed runs and what else there is to say below.

    Where there is no room for all columns, those that are the same in every row stand in a line above; if that is not enough,
    rows of one variant and seed stand together under a line that names them.
    """
    lines = _fitting(rows)
    notes = [f"{row.label} failed: {row.message}" for row in rows if row.failed]
    notes += [f"{row.label}: last direction {row.direction}" for row in rows if row.direction not in (None, _EXACT)]
    exact = sum(row.direction == _EXACT for row in rows)
    notes += [f"last direction exact in {exact} of {len(rows)} runs"] if exact else []
    compiling = sum(row.compile_seconds or 0.0 for row in rows)
    notes += [f"compiling took {compiling:.1f} s more"] if compiling else []
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _fitting(rows: Sequence[Row]) -> list[str]:
    columns = list(_HEADINGS)
    lines = _aligned(rows, columns)
    if _width(lines) <= _WIDTH or not rows:
        return lines
    same = [name for name in _OFTEN_THE_SAME if len({getattr(row, name) for row in rows}) == 1]
    columns = [name for name in columns if name not in same]
    above = [", ".join(f"{name} {getattr(rows[0], name)}" for name in same)] if same else []
    lines = _aligned(rows, columns)
    if _width(lines) <= _WIDTH:
        return above + lines
    groups = [name for name in _OF_GROUPS if name in columns]
    columns = [name for name in columns if name not in groups]
    others = _width(_aligned(rows, [name for name in columns if name != "flow"], " "))
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
    columns = {name: [*_HEADINGS[name], *(_cell(row, name, longest) for row in rows)] for name in names}
    widths = {name: max(map(len, cells)) for name, cells in columns.items()}
    lines = [
        between.join(
            cells[line].ljust(widths[name]) if name in _TEXTS else cells[line].rjust(widths[name])
            for name, cells in columns.items()
        ).rstrip()
        for line in range(len(rows) + 2)
    ]
    return [*lines[:2], between.join("-" * width for width in widths.values()), *lines[2:]]


def _width(lines: Sequence[str]) -> int:
    return max(map(len, lines))


def _cell(row: Row, name: str, longest: int | None) -> str:
    value = getattr(row, name)
    text = "-" if value is None else format(value, _FORMATS.get(name, ""))
    if name != "flow" or longest is None or len(text) <= longest:
        return text
    return f"{text[: longest // 2]}~{text[len(text) - longest // 2 :]}"


def _direction(stats: Mapping[str, Any]) -> str | None:
    """Whether the last direction was exact, of a flow that claims to be."""
    if "final_truncated" not in stats:
        return None
    return f"truncated, residual {stats['final_relative_residual']:.1e}" if stats["final_truncated"] else _EXACT
