"""The folder of a sweep: one file for each cell, an index, and nothing that a kill can spoil."""

import contextlib
import errno
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from .._core import (
    ResultCode,
    RunFolderError,
    as_path,
    cannot_write,
    draft_of,
    is_temporary,
    sync_folder,
    write_whole,
)
from ..config import Specification
from ..simulate import DATA_FILE
from ._cell import CellOutcome, Kept, outcome_of_code, read_cell, record_of
from ._cell_files import CELLS, SET_ASIDE, CellFiles, Found
from ._configuration import CONFIG_FILE, ConfigurationFile
from ._index import Index
from ._record import ERROR
from ._summary import as_csv, rows_of
from ._trajectories import KeptRun, Trajectories

_INDEX = "index.jsonl"
_KNOWN = (CELLS, _INDEX, SET_ASIDE)  # cells without a configuration are taken over
_LARGEST_CELL = 2**32  # bytes; a file may be larger than the memory of who reads it, and hold nothing
# Errors that say nothing about the file: too many open files, no memory, a network file system that lost track.
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)


class SweepStore:
    """The folder of a grid of runs.

    - `config.toml`: the configuration as it was run, its size and overrides applied (`sweep.toml` in sweeps of version 0.1.0);
    - `cells/ab/<content hash>.nc`: a file for each finished cell, failed ones included (`SweepStore.read`), unless
    - `runs/VARIANT/FLOW/seed-K/` holds its whole trajectory, of which the same is derived;
    - `index.jsonl`: a line for each of them, so that they need not be opened; it may be deleted;
    - `set_aside/`: files that were found damaged or are not the cell their name says;
    - `summary.csv`, where trajectories are kept: a line for each run.

    A file appears whole or not at all, and is never changed. Any number of processes may work on one folder.

    **Arguments:** `folder`: need not exist yet. **Attributes:** `configuration`: the file that states the grid; `trajectories`:
    those that are kept whole.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = as_path(folder, "the folder", RunFolderError)
        self.trajectories = Trajectories(self.folder)
        self.configuration = ConfigurationFile(self.folder)
        self._index = Index(self.folder / _INDEX)
        self._files = CellFiles(self.folder, self._index)

    def begin(self, spec: Specification, *, resume: bool = False) -> None:
        """Make the folder and write the configuration.

        A folder that holds another grid is gone on with, if this one has all of that one's cells (and perhaps more:
        values and seeds may be added). A configuration that says the same is left as it is.

        **Arguments:** `resume`: True where nobody else works on the folder: then only what is finished in it has to be
        of this grid.

        **Raises:** `RunFolderError` if the folder holds other things, a grid that has cells this one has not,
        trajectories that are not this grid's, or a configuration that gnflow did not write and that would be replaced,
        or cannot be written.
        """
        try:
            if not self._fits(spec, resume):
                self.folder.mkdir(parents=True, exist_ok=True)
                # Held, so that of two sweeps that begin here at once the second one sees the first.
                with self._index.locked():
                    if not self._fits(spec, resume):
                        self.configuration.write(spec)
        except OSError as error:
            raise error if isinstance(error, RunFolderError) else cannot_write(self.folder, error) from error

    def require_fit(self, spec: Specification, *, resume: bool = False) -> None:
        """Check that the folder may be begun with this grid, and write nothing. **Raises:** as `begin`."""
        try:
            self._fits(spec, resume)
        except OSError as error:
            raise error if isinstance(error, RunFolderError) else cannot_write(self.folder, error) from error

    def _fits(self, spec: Specification, resume: bool) -> bool:
        """Whether the configuration is there as it should be.

        **Raises:** `RunFolderError` if the folder is not for this grid; `OSError` if it cannot be read.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise RunFolderError(f"{self.folder} is a file; choose a folder.")
        above = next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists())
        if not above.is_dir():
            raise RunFolderError(f"{self.folder} cannot be made, because {above} is a file; choose another folder.")
        if self.configuration.exists():
            is_there = self.configuration.says(spec)
            self.trajectories.require_all_in(spec)
            if not is_there:
                (self._require_finished_cells if resume else self._require_all_cells)(spec)
                if not self.configuration.is_gnflows():
                    raise RunFolderError(
                        f"{self.configuration.path} states another configuration than is to be run, and gnflow has not "
                        "written it as it stands, so it is not overwritten; choose another folder with --out, or "
                        "move that file."
                    )
            return is_there
        if self.folder.is_dir():
            others = sorted(
                entry.name
                for entry in self.folder.iterdir()
                if entry.name not in _KNOWN and not is_temporary(entry.name)
            )
            if others:
                raise RunFolderError(
                    f"{self.folder} holds other files ({', '.join(others[:3])}) and no {CONFIG_FILE}; choose another folder."
                )
        return False

    @property
    def set_aside(self) -> list[str]:
        """What this object has set aside so far, a sentence for each file, which is also printed on the standard error
        output."""
        return self._files.set_aside

    def read_specification(self) -> Specification:
        """The grid that this folder holds. **Raises:** `RunFolderError` if there is none, or a damaged one."""
        spec = self.configuration.read()
        absent = {str(cell.problem["path"]): None for cell in spec.cells if cell.lacks_data}
        if absent:
            print(
                f"gnflow: {', '.join(absent)} cannot be read; cells that were computed with it are not recognised.",
                file=sys.stderr,
            )
        return spec

    def holds(self, content_hash: str) -> bool:
        """Whether a cell's file is there, or its trajectory, unopened."""
        return self.place(content_hash).is_file() or content_hash in self.trajectories.finished()

    def place(self, content_hash: str) -> Path:
        """Where a cell's file belongs."""
        return self._files.place(content_hash)

    def read(self, content_hash: str) -> xr.Dataset:
        """All that a finished cell holds: what was measured along its run, and in the attributes how it ended.

        **Raises:** `RunFolderError` if the file is missing or is not what it should be.
        """
        run = self.trajectories.finished().get(content_hash)
        if run is not None:
            return run.cell()
        place = self.place(content_hash)
        try:
            return read_cell(place.read_bytes(), content_hash)[0]
        except OSError as error:
            raise RunFolderError(f"{place}: {error}") from error

    def put(self, outcome: CellOutcome) -> dict[str, Any] | None:
        """Keep a finished cell, for good: its whole trajectory, where the outcome has it.

        **Returns:** its record. A trajectory that cannot be kept here is kept in another folder, which its record and
        the standard error output name; of a run that was interrupted the trajectory is kept beside the finished ones,
        and there is no record.

        **Raises:** `RunFolderError` if a cell's file cannot be written (full disk, read-only folder); then nothing
        half-written stays.
        """
        if outcome.kept is not None:
            return self._put_trajectory(outcome, outcome.kept)
        place = self.place(outcome.content_hash)
        try:
            self._files.make_folder_of(place)
            draft = draft_of(place, outcome.payload)
            try:
                # Held over both, so that the line is about the file that is there if two processes finish one cell.
                with self._index.locked() as lines:
                    os.replace(draft, place)
                    sync_folder(place.parent)
                    record = {**outcome.record, "mtime_ns": place.stat().st_mtime_ns}
                    lines.append([record])
                return record
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise cannot_write(place, error) from error

    def _put_trajectory(self, outcome: CellOutcome, kept: Kept) -> dict[str, Any] | None:
        is_interrupted = outcome.record["code"] == ResultCode.INTERRUPTED
        try:
            place = self.trajectories.save(kept, is_interrupted)
        except RunFolderError as error:
            print(f"gnflow: {kept.spec.label}: {error}", file=sys.stderr)
            return None if is_interrupted else {**outcome.record, "failed": True, "message": str(error)}
        if is_interrupted:
            print(f"gnflow: {kept.spec.label}: {str(kept.trajectory.result).rstrip('.')}; in {place}", file=sys.stderr)
            return None
        with contextlib.suppress(OSError):  # the index only saves deriving the line from the run
            payload, changed = (place / DATA_FILE).read_bytes(), (place / DATA_FILE).stat().st_mtime_ns
            found = {"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest(), "mtime_ns": changed}
            with self._index.locked() as lines:
                lines.append([{**outcome.record, **found}])
            self.place(outcome.content_hash).unlink(missing_ok=True)  # of an attempt that raised an error
        return outcome.record

    def write_summary(self, spec: Specification, records: Mapping[str, Mapping[str, Any]]) -> None:
        """summary.csv: one line for each run that has a record. **Raises:** `RunFolderError` if it cannot be written."""
        file = self.folder / "summary.csv"
        try:
            write_whole(file, as_csv(rows_of(spec, records)))
        except OSError as error:
            raise cannot_write(file, error) from error

    def finished(self, cells: Iterable[str], check: bool = False) -> dict[str, dict[str, Any]]:
        """The records of those of `cells` that are finished, by content hash.

        A file that fits its line in the index is not opened; any other is checked as a whole, and then entered in the index
        or set aside, so that its cell counts as missing. A trajectory that cannot be read stays where it is, and its record has
        the code "error". Files of other sweeps' cells are left alone; what else is found
        among the cells is set aside, and what killed writers left is removed.

        **Arguments:** `cells`: content hashes; `check`: read every file, and compare its checksum and its line in the index;
        how many lines were wrong is printed on the standard error output, and the files hold.
        """
        found = self._files.find()
        runs = self.trajectories.finished()
        lines = self._index.read()
        records: dict[str, dict[str, Any]] = {}
        again: dict[str, tuple[Found, dict[str, Any]]] = {}
        wrong: list[str] = []
        for content_hash in cells:
            run = runs.get(content_hash)
            file = found.get(content_hash) if run is None else Found.of(run.place / DATA_FILE)
            if file is None:
                continue
            line = lines.get(content_hash if run is None else run.content_hash)
            if line is not None and file.fits(line) and not check:
                records[content_hash] = line
                continue
            believed = None if check else line
            if run is None:
                record = self._examine(file, content_hash, believed)
            else:
                record = self._examine_run(file, run, believed)
            if record is not None:
                records[content_hash] = record
                is_wrong = line is not None and file.fits(line) and not _agree(line, record)
                if "mtime_ns" in record and (is_wrong or not file.fits(line)):
                    again[content_hash] = (file, record)
                wrong += [content_hash] if is_wrong else []
        self._enter(again)
        if wrong:
            print(
                f"gnflow: {self.folder / _INDEX} said otherwise of {len(wrong)} cells (such as {wrong[0]}) than their files; "
                "the files hold.",
                file=sys.stderr,
            )
        return records

    def _examine(self, file: Found, content_hash: str, line: dict[str, Any] | None) -> dict[str, Any] | None:
        """The record of a file that the index does not vouch for, or None if it is set aside.

        **Arguments:** `line`: of the index, to be believed if the file has its checksum.
        """
        if file.size > _LARGEST_CELL:
            self._files.put_aside(file.path, f"it has {file.size} bytes, more than a cell of a sweep", file.mtime_ns)
            return None
        try:
            payload = file.path.read_bytes()
            if line is not None and line.get("sha256") == hashlib.sha256(payload).hexdigest():
                return {**line, "mtime_ns": file.mtime_ns}
            return {**read_cell(payload, content_hash)[1], "mtime_ns": file.mtime_ns}
        except FileNotFoundError:
            return None  # another process has set it aside
        except PermissionError as error:
            raise RunFolderError(f"{file.path} cannot be read: permission is denied.") from error
        except OSError as error:  # the machine's, the disk's, or gnflow's own for a file that is not what it should be
            if error.errno in _PASSING:
                raise RunFolderError(
                    f"{file.path} cannot be read now: {error.strerror}; when that has passed, give the same command again."
                ) from error
            self._files.put_aside(file.path, str(error), file.mtime_ns)
            return None

    def _examine_run(self, file: Found, run: KeptRun, line: dict[str, Any] | None) -> dict[str, Any]:
        """The record of a trajectory that the index does not vouch for; one of an error if it cannot be read."""
        try:
            payload = file.path.read_bytes()
            if line is not None and line.get("sha256") == hashlib.sha256(payload).hexdigest():
                return {**line, "mtime_ns": file.mtime_ns}
            return {**record_of(run.cell(), payload), "mtime_ns": file.mtime_ns}
        except OSError as error:  # gnflow's own errors of what it reads are among them
            text = f"{error} Remove {run.place}, and the same command computes it again."
            return outcome_of_code(run.spec, ERROR, text).record

    def _enter(self, again: dict[str, tuple[Found, dict[str, Any]]]) -> None:
        if not again:
            return
        try:
            with self._index.locked() as lines:
                # Unless another process has replaced the file meanwhile, and entered it.
                lines.append(
                    [record for file, record in again.values() if file.path.stat().st_mtime_ns == file.mtime_ns]
                )
        except OSError:
            pass  # a read-only folder can be read all the same

    def _require_all_cells(self, spec: Specification) -> None:
        """**Raises:** `RunFolderError` if the folder's grid has cells that `spec` has not."""
        there = self.read_specification()
        mine = set(spec.hashes)
        missing = [cell for cell, key in zip(there.cells, there.hashes, strict=True) if key not in mine]
        if missing:
            raise RunFolderError(
                f"{self.folder} holds another sweep: {len(missing)} of its {len(there.cells)} cells are not in this one (such "
                f"as {missing[0].label}). Choose another folder; or run {self.configuration.path} to go on with that sweep; "
                f"or remove that file to take over the cells that both have."
            )

    def _require_finished_cells(self, spec: Specification) -> None:
        """**Raises:** `RunFolderError` if the folder has finished cells that `spec` has not, other than failed ones."""
        others = self._files.find().keys() - set(spec.hashes)
        finished = sorted(key for key, record in self.finished(others).items() if not record["failed"])
        if finished:
            raise RunFolderError(
                f"{self.folder} holds {len(finished)} finished cells that are not in this configuration (such as "
                f"{self.place(finished[0])}). Choose another folder; or run {self.configuration.path} to go on with them."
            )


def _agree(line: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether a line of the index says of a cell what its file does; earlier versions said less."""
    return all(line[name] == value for name, value in record.items() if name in line)
