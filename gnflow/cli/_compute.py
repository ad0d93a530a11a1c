"""What `gnflow run` and `gnflow sweep` do: compute what is missing of a grid, print how its runs ended, draw figures."""

import functools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._core import ConfigError, RunFolderError, aligned_columns, as_path
from ..config import Specification, parse_assignment, read_sweep
from ..plots import draw_figures
from ..sweeps import SweepStore, compute, dataset_in, make_engine, rows_of
from ._failures import Failures
from ._runs import read_for_figures, read_runs
from ._table import format_table

_QUICK_START = Path(__file__).parent / "quick_start.toml"
_SHOWN_FAILURES = 5
# Options of engines and of `gnflow.sweep` for which the command line has another way.
_ELSEWHERE = {
    "workers": "use --workers K",
    "memory_gib": "use --memory GIB",
    "engine": "use --engine",
    "cluster": "use --engine",
    "size": "use --size NAME",
    "spec": "the configuration is the first argument",
    "out": "use --out DIR",
    "keep_trajectories": "use gnflow run",
    "check": "use --check",
    "retry_failed": "use --retry-failed",
    "progress": "it is shown unless --quiet is given",
}


def run_configuration(
    config: str | None,
    out: str | None,
    *,
    size: str | None,
    overrides: Sequence[str],
    resume: bool,
    accept_digests: Sequence[str],
    quiet: bool,
) -> int:
    """Run a configuration in this process, keep the trajectories, print a line for each run and draw the figures.

    The arguments are those of the command line.

    **Returns:** the exit code.
    """
    spec, store = _read(config, out, "gnflow-runs", size, overrides)
    if store.configuration.exists() and not resume:
        held = "a run" if store.configuration.is_gnflows() else "a configuration that gnflow did not write"
        raise RunFolderError(
            f"{store.folder} already holds {held}, and nothing is overwritten; give --resume to keep what is finished "
            "and compute what is missing, choose another folder with --out, or remove this one."
        )
    records = compute(spec, store, resume=True, retry_failed=True, accept_digests=accept_digests, progress=not quiet)
    runs, damaged = read_runs(store, spec, functools.partial(read_for_figures, accepted=accept_digests))
    unread = {"code": "error", "failed": True, "finals": {}, "errors": {}}
    records |= {key: {**records[key], **unread, "message": message} for key, message in damaged.items()}
    rows = rows_of(spec, records)
    failures = Failures()
    dataset = dataset_in(store, spec, records)
    figures = draw_figures(dataset, store.folder / "figures", runs=runs, on_failure=failures.tell)
    number = sum(spec.hashes[place] in runs for place in spec.grid.flat)
    # Printed last, because the reader of the output may have gone, and printing then fails.
    print(format_table(rows))
    print(f"\n{number} of {len(spec.runs)} runs and {len(figures)} figures in {store.folder}")
    return 1 if failures.names or any(row.failed for row in rows) else 0


def sweep_configuration(
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
    accept_digests: Sequence[str],
    quiet: bool,
) -> int:
    """Run a configuration with an engine, and print the numbers of cells by result.

    The arguments are those of the command line.

    **Returns:** the exit code.
    """
    spec, store = _read(config, out, "gnflow-sweeps", size, overrides)
    carrier = make_engine(engine, workers=workers, memory_gib=memory, **_named(options))
    records = compute(
        spec,
        store,
        engine=carrier,
        retry_failed=retry_failed,
        check=check,
        accept_digests=accept_digests,
        progress=not quiet,
    )
    print("\n".join(_counts(spec, records)))
    failed = [f"{row.label} failed: {row.result}: {row.message}" for row in rows_of(spec, records) if row.failed]
    if failed:
        print("\n".join(["", *failed[:_SHOWN_FAILURES]]))
        if len(failed) > _SHOWN_FAILURES:
            print(f"... and {len(failed) - _SHOWN_FAILURES} more")
    number, folder = len(records), store.folder
    print(f"\n{number} of {len(spec.cells)} cells in {folder}; gnflow.load({str(folder)!r}) is the data set.")
    sys.stdout.flush()
    return 1 if failed else 0


def _read(
    config: str | None, out: str | None, default: str, size: str | None, overrides: Sequence[str]
) -> tuple[Specification, SweepStore]:
    place = None if out is None else as_path(out, "--out", ConfigError)
    source = _QUICK_START if config is None else as_path(config, "the configuration", ConfigError)
    spec = read_sweep(source, size, [parse_assignment(text) for text in overrides])
    return spec, SweepStore(place or Path(default) / spec.name)


def _named(options: Sequence[str]) -> dict[str, Any]:
    """The options of the engine. **Raises:** `ConfigError` for those that are given in another way."""
    named: dict[str, Any] = {}
    for text in options:
        path, value = parse_assignment(text, "--option")
        name = ".".join(path)
        if name in _ELSEWHERE:
            raise ConfigError(f"--option {text}: {name} is not given so; {_ELSEWHERE[name]}.")
        named[name] = value
    return named


def _counts(spec: Specification, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The numbers of cells by result code, for each flow and in all, as lines of a table."""
    counts = Counter(
        (records[content_hash]["code"] if content_hash in records else "missing", cell.flow_name)
        for content_hash, cell in zip(spec.hashes, spec.cells, strict=True)
    )
    rows: list[tuple[str, ...]] = [("result", *spec.flows, "all")]
    for code in sorted({code for code, _ in counts}):
        numbers = [counts[code, flow] for flow in spec.flows]
        rows.append((code, *(str(number) if number else "-" for number in numbers), str(sum(numbers))))
    heading, *lines = aligned_columns(rows)
    return [heading, "-" * max(map(len, [heading, *lines])), *lines]
