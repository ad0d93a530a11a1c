"""The verb `gnflow sweep`."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import tyro

from .._core import ConfigError, aligned_columns
from ..config import parse_assignment
from ..sweeps import SweepSpec, SweepStore, read_sweep, sweep as carry_out
from ._options import Quiet

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


def sweep(
    config: tyro.conf.Positional[
        Annotated[Path, tyro.conf.arg(metavar="CONFIG.toml", help="The file that states the sweep.")]
    ],
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="DIR",
            help_behavior_hint="(default: gnflow-sweeps/NAME)",
            help="The folder to write, or to go on with: sweep.toml, cells/, index.jsonl.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME", help_behavior_hint="", help="One of the file's [sizes], such as smoke, laptop or paper."
        ),
    ] = None,
    overrides: tyro.conf.UseAppendAction[
        Annotated[
            tuple[str, ...],
            tyro.conf.arg(
                name="set",
                metavar="KEY=VALUE",
                help="Change one entry of the configuration, such as --set axes.tau0.values=[0.1,1].",
            ),
        ]
    ] = (),
    engine: Annotated[
        str,
        tyro.conf.arg(
            metavar="local|dask|slurm|tcp://HOST:PORT",
            help="Where the cells are computed: processes of this machine, a Dask cluster of this machine, Slurm jobs, or "
            "the workers of a Dask scheduler that runs already.",
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        tyro.conf.arg(metavar="K", help_behavior_hint="(default: one per core)", help="Processes, or Slurm jobs."),
    ] = None,
    memory: Annotated[
        float | None,
        tyro.conf.arg(
            metavar="GIB",
            help_behavior_hint="(default: what is free)",
            help="Memory in GiB: of all processes together (local), of each worker (dask, slurm).",
        ),
    ] = None,
    options: tyro.conf.UseAppendAction[
        Annotated[
            tuple[str, ...],
            tyro.conf.arg(
                name="option",
                metavar="KEY=VALUE",
                help="An option of the engine, such as --option threads=4, walltime=02:00:00, queue=long.",
            ),
        ]
    ] = (),
    retry_failed: tyro.conf.FlagCreatePairsOff[
        Annotated[
            bool,
            tyro.conf.arg(
                help_behavior_hint="", help="Compute again the cells that raised an error or lost their worker."
            ),
        ]
    ] = False,
    check: tyro.conf.FlagCreatePairsOff[
        Annotated[
            bool, tyro.conf.arg(help_behavior_hint="", help="Compare the checksums of the cells that are finished.")
        ]
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Carry out a grid of runs (axes x flows x seeds) that a TOML file states, or what is missing of it in DIR.

    It may be stopped at any instant; the same command goes on. The exit code is 1 if a cell failed, 2 for bad input, 130 after
    Ctrl-C.
    """
    spec = read_sweep(config, size, [parse_assignment(text) for text in overrides])
    folder = out or Path("gnflow-sweeps") / spec.name
    carry_out(
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


def _named(options: tuple[str, ...]) -> dict[str, Any]:
    """The options of the engine. **Raises:** `ConfigError` for one that has an option of the command line of its own."""
    named: dict[str, Any] = {}
    for text in options:
        path, value = parse_assignment(text, "--option")
        name = ".".join(path)
        if name in _OWN:
            raise ConfigError(f"--option {text}: {name} is not given so; {_OWN[name]}.")
        named[name] = value
    return named


def _table(spec: SweepSpec, records: dict[str, dict[str, Any]]) -> list[str]:
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


def _failures(spec: SweepSpec, records: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each cell that failed."""
    return [
        f"{cell.label} failed: {records[content_hash]['code']}: {records[content_hash]['message']}"
        for content_hash, cell in zip(spec.hashes, spec.cells, strict=True)
        if content_hash in records and records[content_hash]["failed"]
    ]
