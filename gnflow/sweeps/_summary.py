"""One row for each run, which `gnflow run` prints and summary.csv holds."""

import csv
import dataclasses
import io
from collections.abc import Mapping
from typing import Any

from ..config import RunSpec, Specification
from ..simulate import BEST_LOSSES
from ._cell import EXACT


@dataclasses.dataclass(frozen=True)
class Row:
    """How one run ended. None stands for numbers that it does not have."""

    variant: str
    flow: str
    seed: int
    result: str
    failed: bool
    num_steps: int | None = None
    flow_time: float | None = None
    train_loss: float | None = None
    test_loss: float | None = None
    validation_loss: float | None = None
    best_validation_loss: float | None = None
    best_validation_loss_time: float | None = None
    test_loss_at_best_validation: float | None = None
    best_test_loss: float | None = None  # selected on the test set
    best_test_loss_time: float | None = None
    kernel_distance: float | None = None
    direction: str | None = None
    distance_to_gradient_flow: float | None = None
    wall_seconds: float | None = None
    compile_seconds: float | None = None
    message: str = ""
    content_hash: str = ""
    errors: Mapping[str, float] = dataclasses.field(default_factory=dict)  # functionals of the problem, at the end

    @classmethod
    def of(cls, spec: RunSpec, record: Mapping[str, Any]) -> "Row":
        """The row of a run with this record, complete or not."""
        finals = record["finals"]
        # An optimiser has no flow time. Its time is the number of steps, which has its own column.
        in_flow_time = bool(finals) and "optimiser" not in spec.integration
        return cls(
            spec.variant,
            spec.flow_name,
            spec.seed,
            record["code"],
            record["failed"],
            num_steps=record["num_steps"],
            flow_time=float(record["time"]) if in_flow_time else None,
            train_loss=_number(finals.get("train_loss")),
            test_loss=_number(finals.get("test_loss")),
            validation_loss=_number(finals.get("validation_loss")),
            **{name: _number(record.get("best", {}).get(name)) for name in BEST_LOSSES},
            kernel_distance=_number(finals.get("kernel_distance")),
            direction=record.get("direction"),
            distance_to_gradient_flow=_number(record.get("distance_to_gradient_flow")),
            wall_seconds=_number(record["wall_seconds"]) if finals else None,
            compile_seconds=_number(record.get("compile_seconds")),  # missing in records of earlier versions
            message=record["message"],
            content_hash=record["hash"],
            errors={name: float(value) for name, value in (record.get("errors") or {}).items()},
        )

    @property
    def label(self) -> str:
        """The name of the run: variant/flow/seed-k."""
        return f"{self.variant}/{self.flow}/seed-{self.seed}"

    @property
    def is_exact(self) -> bool | None:
        """Whether the last direction was exact; None for a flow that does not claim to be exact."""
        return None if self.direction is None else self.direction == EXACT

    @property
    def run_seconds(self) -> float | None:
        """The wall time without compiling, or all of it if the time of compiling is not known."""
        return None if self.wall_seconds is None else self.wall_seconds - (self.compile_seconds or 0.0)


def rows_of(spec: Specification, records: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row for each run that has a record, in the order of the grid."""
    pairs = ((run, spec.hashes[place]) for run, place in zip(spec.runs, spec.grid.flat, strict=True))
    return [Row.of(run, records[content_hash]) for run, content_hash in pairs if content_hash in records]


def as_csv(rows: list[Row]) -> bytes:
    """The rows as CSV, in full precision. Error functionals have a column each, with "final_" before a name that is taken."""
    text = io.StringIO(newline="")
    fields = [field.name for field in dataclasses.fields(Row) if field.name != "errors"]
    columns = {name: f"final_{name}" if name in fields else name for row in rows for name in row.errors}
    place = fields.index("kernel_distance")
    writer = csv.DictWriter(text, fieldnames=[*fields[:place], *columns.values(), *fields[place:]])
    writer.writeheader()
    for row in rows:
        errors = {columns[name]: value for name, value in row.errors.items()}
        writer.writerow({**{name: getattr(row, name) for name in fields}, **errors})
    return text.getvalue().encode("utf-8", "backslashreplace")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
