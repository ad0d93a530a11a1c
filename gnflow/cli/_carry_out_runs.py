"""What `gnflow run` does: every run of a specification, a table and the figures."""

import dataclasses
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from .._core import ConfigError, GnflowError, RunFolderError, as_path
from ..config import RunSpec, Specification, parse_assignment, read_sweep
from ..plots import draw_figures
from ..simulate import RunInterrupted, Trajectory
from ._failures import Failures
from ._folder import RunFolder
from ._table import Row, format_table

_QUICK_START = Path(__file__).parent / "quick_start.toml"


def carry_out_runs(config: str | None, out: str | None, overrides: Sequence[str], resume: bool, quiet: bool) -> int:
    """Carry out the runs that `config` states, print the table and draw the figures.

    **Arguments:** those of the command line. **Returns:** the exit code.
    """
    place = None if out is None else as_path(out, "--out", ConfigError)
    source = _QUICK_START if config is None else as_path(config, "the configuration", ConfigError)
    specification = read_sweep(source, overrides=[parse_assignment(text) for text in overrides])
    folder = RunFolder(place or Path("gnflow-runs") / specification.name)
    folder.require_fit(specification, resume)
    specification.check(combinations=True)
    folder.begin(specification)
    rows = _carry_out(specification, folder, quiet)
    finished = folder.load(specification)
    failures = Failures()
    figures = draw_figures(specification, finished, folder.figures, failures.tell)
    # Last, for whoever reads it may have gone.
    print(format_table(rows))
    print(f"\n{len(finished)} of {len(rows)} runs and {len(figures)} figures in {folder.path}")
    return 1 if failures.names or any(row.failed for row in rows) else 0


def _carry_out(specification: Specification, folder: RunFolder, quiet: bool) -> list[Row]:
    """Every run in turn, saved as it ends, with the summary up to date; one that fails does not stop the others."""
    rows: list[Row] = []
    for number, spec in enumerate(specification.runs, start=1):
        kept = folder.holds(spec)
        if not quiet:
            state = "finished before" if kept else "running"
            print(f"[{number}/{len(specification.runs)}] {spec.label}: {state}", file=sys.stderr)
        rows.append(_load_one(spec, folder) if kept else _carry_out_one(spec, folder, quiet))
        folder.forget_unfinished(spec)  # not where the run was interrupted, or the process killed
        try:
            folder.write_summary(rows)
        except RunFolderError as error:  # the runs are worth more than their summary
            print(f"gnflow: {error}", file=sys.stderr)
    return rows


def _load_one(spec: RunSpec, folder: RunFolder) -> Row:
    try:
        return Row.of(spec, folder.load_run(spec))
    except GnflowError as error:
        print(f"gnflow: {spec.label}: {error}", file=sys.stderr)
        return Row.of_error(spec, error)


def _carry_out_one(spec: RunSpec, folder: RunFolder, quiet: bool) -> Row:
    try:
        data_digest = spec.data_digest  # of the files as they are read, whatever becomes of them during the run
        trajectory: Trajectory = spec.run(progress=not quiet, checkpoint=folder.unfinished(spec))
    except RunInterrupted as stop:
        try:
            kept = f"in {folder.keep_interrupted(spec, stop.trajectory)}"
        except RunFolderError as error:
            kept = str(error)
        print(f"gnflow: {spec.label}: {stop.trajectory.result}; {kept}", file=sys.stderr)
        raise
    except GnflowError as error:
        print(f"gnflow: {spec.label}: {error}", file=sys.stderr)
        return Row.of_error(spec, error)
    except Exception as error:
        # Whatever else goes wrong in one run (memory, a backend's error), the others are still worth having.
        traceback.print_exc()
        return Row.of_error(spec, error)
    row = Row.of(spec, trajectory)
    try:
        folder.save_run(spec, trajectory, data_digest)
    except RunFolderError as error:
        print(f"gnflow: {spec.label}: {error}", file=sys.stderr)
        return dataclasses.replace(row, failed=True, message=str(error))
    return row
