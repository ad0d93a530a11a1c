"""The driver of sweeps: compute and keep what is missing of a grid, cell by cell."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import xarray as xr

from .._core import ConfigError, RunFolderError, make_writable
from ..config import RunSpec, Specification, read_sweep
from ..simulate import versions
from ._cell import ERROR, WORKER_DIED
from ._choice import make_engine
from ._dataset import dataset_in
from ._engine import AbstractEngine
from ._progress import CellProgress
from ._serial import SerialEngine
from ._store import SweepStore
from ._task import largest_first
from ._versions import say_if_mixed, versions_in

try:
    import fcntl
except ImportError:  # on Windows two processes on one folder work in the same order
    fcntl = None


def sweep(
    spec: Specification | Mapping[str, Any] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: str | None = None,
    engine: str | AbstractEngine | None = None,
    workers: int | None = None,
    memory_gib: float | None = None,
    keep_trajectories: bool = False,
    retry_failed: bool = False,
    check: bool = False,
    accept_digests: Iterable[str] = (),
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Compute a grid of runs, or what is missing of it, and return its results over the axes.

    Every cell is kept in `out` as soon as it is finished. So a sweep may be stopped at any instant and by any cause, and the
    same call goes on with the rest. Several processes may work on one folder and share the cells. A cell that fails is recorded
    with its code and does not stop the others.

    **Arguments:**

    - `spec`: a `Specification`, a TOML file that states one, or its table.
    - `out`: the folder, which is new, empty, or of this grid.
    - `size`: one of the names in the [sizes] of the specification.
    - `engine`: "local" (processes on this machine, the default), "serial" (this process, one cell after another), "dask" (a
      Dask cluster on this machine), "slurm" (Slurm jobs), the address of a Dask scheduler, or an engine.
    - `workers`, `memory_gib`, `options`: options of `LocalEngine` or `DaskEngine`.
    - `keep_trajectories`: whether to keep whole trajectories with their models, as `gnflow run` does. They are written to
      `out`/runs/VARIANT/FLOW/seed-K, which `gnflow.load` reads. The runs are then made in this process, one after another, with
      checkpoints.
    - `retry_failed`: whether to compute cells again whose run raised an error or whose worker died. Cells whose run ended with
      its own result code would end in the same way again.
    - `check`: whether to read the files of all finished cells and compare their checksums, which takes longer than reading the
      index.
    - `accept_digests`: digests of changed modules of yours with which to go on in the folder, by their first 8 or more digits
      (docs/cli.md, Parts).
    - `progress`: whether to show a bar with cells done and failed, rate and time left. If trajectories are kept, there is a bar
      for each run.

    **Returns:** the data set that `gnflow.load(out)` returns: final values, result codes and times over (axes..., flow, seed).

    **Raises:** `ConfigError` for bad input, before anything is computed, also for a module of yours that was changed since
    cells in the folder were computed with it; `RunFolderError` if the folder holds other things or
    cannot be written; `KeyboardInterrupt` after Ctrl-C, with the finished cells kept.
    """
    spec = _specification(spec, size)
    if keep_trajectories and engine not in (None, "serial"):
        raise ConfigError(
            f"keep_trajectories = True with engine = {engine!r}: trajectories are kept of runs in this process alone; leave "
            "the engine out, or keep_trajectories."
        )
    name = "serial" if keep_trajectories else engine or "local"
    carrier = make_engine(name, workers=workers, memory_gib=memory_gib, **options)
    store = SweepStore(out)
    records = compute(
        spec,
        store,
        engine=None if keep_trajectories else carrier,
        retry_failed=retry_failed,
        check=check,
        accept_digests=accept_digests,
        progress=progress,
    )
    return dataset_in(store, spec, records)


def compute(
    spec: Specification,
    store: SweepStore,
    *,
    engine: AbstractEngine | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    check: bool = False,
    accept_digests: Iterable[str] = (),
    progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """Compute and keep what is missing of a grid.

    **Arguments:**

    - `spec`: the grid.
    - `store`: the folder.
    - `engine`: the engine, or None for runs in this process whose trajectories are kept.
    - `resume`: as for `SweepStore.begin`.
    - `retry_failed`, `check`, `accept_digests`, `progress`: as for `sweep`.

    **Returns:** the records of the cells by content hash, as `SweepStore.finished` returns them, and also those of runs that
    could not be kept.

    **Raises:** the errors of `sweep`.
    """
    store.modules.require_same(spec.sources, accept_digests)
    keeping = next((cell.label for cell in spec.cells if "saveat_weights" in cell.integration), None)
    if keeping is not None and engine is not None:
        raise ConfigError(
            f"{keeping} has integration.saveat_weights, and this sweep keeps what was measured and no weights; make it with "
            "gnflow run, or gnflow.sweep(..., keep_trajectories=True), or leave saveat_weights out."
        )
    store.require_fit(spec, resume=resume)
    finished = store.finished(spec.hashes, check=check)
    has_raised = {key: record["code"] in (ERROR, WORKER_DIED) for key, record in finished.items()}
    wanted = [key for key in finished if (retry_failed if has_raised[key] else engine is None)]
    # Only cells with a file are computed again. A trajectory is never overwritten, also if it cannot be read.
    again = {key for key in wanted if store.place(key).is_file()}
    pending = {
        content_hash: cell
        for content_hash, cell in zip(spec.hashes, spec.cells, strict=True)
        if content_hash not in finished or content_hash in again
    }
    kept = {key: record for key, record in finished.items() if key not in again}
    say_if_mixed([*versions_in(kept.values()), *([versions()["gnflow"]] if pending else [])], store.folder)
    if pending:
        spec.check(pending.values(), combinations=engine is None)
    store.begin(spec, resume=resume)
    if pending:
        make_writable(store.folder)
    records = dict(kept)
    if pending or engine is None:
        _carry_on(spec, store, engine, pending, records, again, progress)
    return records | store.finished([key for key in spec.hashes if key not in records])


def _carry_on(
    spec: Specification,
    store: SweepStore,
    engine: AbstractEngine | None,
    pending: Mapping[str, RunSpec],
    records: dict[str, dict[str, Any]],
    again: set[str],
    progress: bool,
) -> None:
    """Run the engine and keep every outcome. Whatever interrupts this ends the engine, too.

    **Arguments:**

    - `spec`, `store`, `engine`, `progress`: as for `compute`.
    - `pending`: the cells to compute, by content hash.
    - `records`: the records of the finished cells. New ones are added.
    - `again`: the content hashes of finished cells to compute again.
    """
    cells = list(pending.values())
    shown = CellProgress(spec.cells, records, cells, progress, in_lines=engine is None)
    carrier = SerialEngine(store.trajectories.checkpoint, progress) if engine is None else engine
    if engine is None:
        _write_summary(spec, store, records)
        for cell in (cell for key, cell in zip(spec.hashes, spec.cells, strict=True) if key not in pending):
            store.trajectories.forget_checkpoint(cell)  # left by a process that was killed when it finished the run
    else:
        cells = largest_first(cells)
        if progress:
            print(f"{len(cells)} of {len(spec.cells)} cells to compute, with {carrier.describe()}", file=sys.stderr)

    def wanted(cell: RunSpec) -> bool:
        content_hash = cell.content_hash()
        if content_hash in again or not store.holds(content_hash):
            shown.start(cell)
            return True
        shown.skip()  # another process has finished it
        return False

    with contextlib.ExitStack() as stack:
        # A second process starts at the other end, so that two of them meet in the middle.
        ordered = cells if stack.enter_context(_turn(store)) else cells[::-1]
        stack.enter_context(contextlib.closing(shown))
        outcomes = stack.enter_context(contextlib.closing(carrier.run(ordered, wanted)))  # pyright: ignore[reportArgumentType]
        for outcome in outcomes:
            record = store.put(outcome)
            if record is not None:
                records[outcome.content_hash] = record
            shown.update(outcome.record)
            if engine is None:
                _write_summary(spec, store, records)


def _write_summary(spec: Specification, store: SweepStore, records: Mapping[str, Mapping[str, Any]]) -> None:
    try:
        store.write_summary(spec, records)
    except RunFolderError as error:  # a summary that fails must not stop the runs
        print(f"gnflow: {error}", file=sys.stderr)


def _specification(spec: Specification | Mapping[str, Any] | str | os.PathLike[str], size: str | None) -> Specification:
    if isinstance(spec, Specification):
        if size is not None:
            raise ConfigError(f"size = {size!r} is given beside a Specification; choose the size when it is made.")
        return spec
    if isinstance(spec, Mapping):
        return Specification.from_dict(spec, size, name="sweep", imports=True)
    return read_sweep(spec, size)


@contextlib.contextmanager
def _turn(store: SweepStore) -> Iterator[bool]:
    """Whether this process is the first one that works on the folder now. Only the order of the cells depends on it."""
    if fcntl is None:
        yield True
        return
    with store.configuration.path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first = True
        except OSError:  # another process holds the lock, or the file system has no locks
            first = False
        yield first
