"""One line for each run: what `gnflow run` prints and writes to summary.csv."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import RunSpec
from ..simulate import Trajectory

_HEADINGS = {
    "variant": "variant",
    "flow": "flow",
    "seed": "seed",
    "result": "result",
    "num_steps": "steps",
    "flow_time": "flow time",
    "train_loss": "train loss",
    "test_loss": "test loss",
    "kernel_distance": "kernel distance",
    "direction": "last direction",
    "compile_seconds": "compile [s]",
    "run_seconds": "run [s]",
}
_FORMATS = {
    "flow_time": ".4g",
    "train_loss": ".3e",
    "test_loss": ".3e",
    "kernel_distance": ".3g",
    "compile_seconds": ".1f",
    "run_seconds": ".1f",
}
_TEXTS = ("variant", "flow", "result", "direction")
_ONLY_WHERE_KNOWN = ("direction",)


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
    """The rows as aligned text, with the messages of failed runs below."""
    columns = {
        name: [heading, *(_cell(row, name) for row in rows)]
        for name, heading in _HEADINGS.items()
        if name not in _ONLY_WHERE_KNOWN or any(getattr(row, name) is not None for row in rows)
    }
    widths = {name: max(len(cell) for cell in cells) for name, cells in columns.items()}
    lines = [
        "  ".join(
            cells[line].ljust(widths[name]) if name in _TEXTS else cells[line].rjust(widths[name])
            for name, cells in columns.items()
        ).rstrip()
        for line in range(len(rows) + 1)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths.values()))
    failures = [f"{row.variant}/{row.flow}/seed-{row.seed} failed: {row.message}" for row in rows if row.failed]
    return "\n".join([*lines, *([""] if failures else []), *failures])


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    return "-" if value is None else format(value, _FORMATS.get(name, ""))


def _direction(stats: Mapping[str, Any]) -> str | None:
    """Whether the last direction was exact, of a flow that claims to be."""
    if "final_truncated" not in stats:
        return None
    return f"truncated, residual {stats['final_relative_residual']:.1e}" if stats["final_truncated"] else "exact"
