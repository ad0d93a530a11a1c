"""What `gnflow sweep` does: the cells of a sweep, and a table of how they ended."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._core import ConfigError, aligned_columns, as_path
from ..config import Specification, parse_assignment, read_sweep
from ..sweeps import SweepStore, sweep

_SHOWN_FAILURES = 5
# What an engine or the sweep takes, and the command line has in another place.
_OWN = {
    "workers": "use --workers K",
    "memory_gib": "use --memory GIB",
    "engine": "use --engine",
    "cluster": "use --engine",
    "size": "use --size NAME",
    "spec": "the configuration is the first argument",
    "out": "use --out DIR",
    "check": "use --check",
    "retry_failed": "use --retry-failed",
    "progress": "it is shown unless --quiet is given",
}


def carry_out_sweep(
    config: str,
    out: str | None,
    *,
    size: str | None,
    overrides: Sequence[str],
    engine: str,
    workers: int | None,
    memory: float | None,
    options: Sequence[str],
    retry_failed: bool,
    check: bool,
    quiet: bool,
) -> int:
    """Carry out the sweep that `config` states and print how its cells ended.

    **Arguments:** those of the command line. **Returns:** the exit code.
    """
    place = None if out is None else as_path(out, "--out", ConfigError)
    source = as_path(config, "the configuration", ConfigError)
    spec = read_sweep(source, size, [parse_assignment(text) for text in overrides])
    folder = place or Path("gnflow-sweeps") / spec.name
    sweep(
        spec,
        folder,
        engine=engine,
        workers=workers,
        memory_gib=memory,
        retry_failed=retry_failed,
        check=check,
        progress=not quiet,
        **_named(options),
    )
    records = SweepStore(folder).finished(spec.hashes)
    print("\n".join(_table(spec, records)))
    failed = _failures(spec, records)
    if failed:
        print("\n".join(["", *failed[:_SHOWN_FAILURES]]))
        if len(failed) > _SHOWN_FAILURES:
            print(f"... and {len(failed) - _SHOWN_FAILURES} more")
    print(f"\n{len(records)} of {len(spec.cells)} cells in {folder}; gnflow.load({str(folder)!r}) is the data set.")
    sys.stdout.flush()
    return 1 if failed else 0


def _named(options: Sequence[str]) -> dict[str, Any]:
    """The options of the engine. **Raises:** `ConfigError` for one that has an option of the command line of its own."""
    named: dict[str, Any] = {}
    for text in options:
        path, value = parse_assignment(text, "--option")
        name = ".".join(path)
        if name in _OWN:
            raise ConfigError(f"--option {text}: {name} is not given so; {_OWN[name]}.")
        named[name] = value
    return named


def _table(spec: Specification, records: dict[str, dict[str, Any]]) -> list[str]:
    """Cells by result code, for each flow and together."""
    counts = Counter(
        (records[content_hash]["code"] if content_hash in records else "missing", cell.flow_name)
        for content_hash, cell in zip(spec.hashes, spec.cells, strict=True)
    )
    codes = sorted({code for code, _ in counts})
    rows: list[tuple[str, ...]] = [("result", *spec.flows, "all")]
    for code in codes:
        numbers = [counts[code, flow] for flow in spec.flows]
        rows.append((code, *(str(number) if number else "-" for number in numbers), str(sum(numbers))))
    heading, *lines = aligned_columns(rows)
    return [heading, "-" * max(map(len, [heading, *lines])), *lines]


def _failures(spec: Specification, records: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each cell that failed."""
    return [
        f"{cell.label} failed: {records[content_hash]['code']}: {records[content_hash]['message']}"
        for content_hash, cell in zip(spec.hashes, spec.cells, strict=True)
        if content_hash in records and records[content_hash]["failed"]
    ]
