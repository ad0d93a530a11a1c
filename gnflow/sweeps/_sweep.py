"""The driver: what is missing is computed and kept, cell by cell."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from .._core import ConfigError
from ..config import RunSpec, Specification, read_sweep
from ..simulate import versions
from ._cell import ERROR, WORKER_DIED
from ._choice import make_engine
from ._dataset import dataset_in
from ._engine import AbstractEngine
from ._progress import SweepProgress
from ._store import SWEEP_FILE, SweepStore
from ._task import largest_first
from ._versions import say_if_mixed, versions_in

try:
    import fcntl
except ImportError:  # Windows: two processes on one folder then work in the same order
    fcntl = None


def sweep(
    spec: Specification | Mapping[str, Any] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: str | None = None,
    engine: str | AbstractEngine = "local",
    workers: int | None = None,
    memory_gib: float | None = None,
    retry_failed: bool = False,
    check: bool = False,
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Carry out a sweep, or what is missing of it, and return its results over the axes.

    Every cell is kept in `out` as soon as it is finished, so that a sweep may be stopped at any instant, by whatever it is;
    the same call goes on with the rest. Several processes may work on one folder: they share the cells. A cell that fails is
    recorded with its code and does not stop the others.

    **Arguments:**

    - `spec`: a `Specification`, a TOML file that states one, or its table. `size`: one of the names in its [sizes].
    - `out`: the folder; new, empty, or of this sweep.
    - `engine`: "local" (processes of this machine), "dask" (a Dask cluster of this machine), "slurm" (Slurm jobs), the address
      of a Dask scheduler, or an engine. `workers`, `memory_gib` and further `options` are those of `LocalEngine` or
      `DaskEngine`.
    - `retry_failed`: compute again the cells whose run raised an error or whose worker died. Cells whose run ended with a
      result code of its own would end so again.
    - `check`: read the files of all finished cells and compare their checksums, which takes longer than looking at the index.
    - `progress`: show a bar: cells done, failed, rate and time left.

    **Returns:** the data set that `gnflow.load(out)` gives: final values, result codes and times over (axes..., flow, seed).

    **Raises:** `ConfigError` for bad input, before anything is computed; `RunFolderError` if the folder holds other things or
    cannot be written; `KeyboardInterrupt` after Ctrl-C, with the finished cells kept.
    """
    spec = _specification(spec, size)
    carrier = make_engine(engine, workers=workers, memory_gib=memory_gib, **options)
    store = SweepStore(out)
    store.require_fit(spec)
    finished = store.finished(spec.hashes, check=check)
    again = {key for key, record in finished.items() if retry_failed and record["code"] in (ERROR, WORKER_DIED)}
    pending = {
        content_hash: cell
        for content_hash, cell in zip(spec.hashes, spec.cells, strict=True)
        if content_hash not in finished or content_hash in again
    }
    kept = [record for key, record in finished.items() if key not in again]
    say_if_mixed([*versions_in(kept), *([versions()["gnflow"]] if pending else [])], store.folder)
    if pending:
        spec.check(pending.values())
    store.begin(spec)
    if pending:
        store.require_writable()
        if progress:
            print(f"{len(pending)} of {len(spec.cells)} cells to compute, with {carrier.describe()}", file=sys.stderr)
        bar = SweepProgress(len(spec.cells), len(kept), sum(record["failed"] for record in kept), progress)
        with _turn(store.folder) as first:
            # Two runners start at opposite ends and meet in the middle.
            order = largest_first(list(pending.values()))
            _carry_out(order if first else order[::-1], again, carrier, store, bar)
        finished = store.finished(spec.hashes)
    return dataset_in(store, spec, finished)


def _carry_out(
    cells: list[RunSpec], again: set[str], engine: AbstractEngine, store: SweepStore, bar: SweepProgress
) -> None:
    """Run the engine and keep every outcome. Whatever interrupts it ends the engine too."""

    def wanted(cell: RunSpec) -> bool:
        content_hash = cell.content_hash()
        if content_hash in again or not store.holds(content_hash):
            return True
        bar.skip()  # another process has finished it
        return False

    with contextlib.closing(bar), contextlib.closing(engine.run(cells, wanted)) as outcomes:  # pyright: ignore[reportArgumentType]
        for outcome in outcomes:
            store.put(outcome)
            bar.update(outcome.record)


def _specification(spec: Specification | Mapping[str, Any] | str | os.PathLike[str], size: str | None) -> Specification:
    if isinstance(spec, Specification):
        if size is not None:
            raise ConfigError(f"size = {size!r} is given beside a Specification; choose the size when it is made.")
        return spec
    return Specification.from_dict(spec, size) if isinstance(spec, Mapping) else read_sweep(spec, size)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[bool]:
    """Whether this process is the first of those that work on the folder now. Only the order of the cells depends on it."""
    if fcntl is None:
        yield True
        return
    with (folder / SWEEP_FILE).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first = True
        except OSError:  # held by another, or a file system without locks
            first = False
        yield first
