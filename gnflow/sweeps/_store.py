"""The folder of a sweep, with one file for each cell and an index. A process that is killed cannot damage it."""

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
from ._modules_file import MODULES_FILE, ModulesFile
from ._record import ERROR
from ._summary import as_csv, rows_of
from ._trajectories import KeptRun, Trajectories

_INDEX = "index.jsonl"
_KNOWN = (
    CELLS,
    _INDEX,
    MODULES_FILE,
    SET_ASIDE,
)  # a folder with only these and no configuration may be used: its cells are taken over
_LARGEST_CELL = 2**32  # bytes; a sparse file may be larger than the memory and hold nothing
# Errors that say nothing about the file: too many open files, no memory, a stale handle of a network file system.
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)


class SweepStore:
    """The folder of a grid of runs. It contains:

    - `config.toml`: the configuration as it was run, with size and overrides applied (`sweep.toml` in version 0.1.0).
    - `cells/ab/<content hash>.nc`: a file for each finished cell, also for failed ones (`SweepStore.read`).
    - `runs/VARIANT/FLOW/seed-K/`: in the place of such a file the whole trajectory, from which the same can be derived.
    - `index.jsonl`: a line for each finished cell, so that its file need not be opened. The index may be deleted.
    - `modules.json`: the modules of the user's that parts of the runs are from, with their digests.
    - `set_aside/`: files that are damaged or do not hold the cell that their name says.
    - `summary.csv`: a line for each run, if trajectories are kept.

    A file appears whole or not at all, and is never changed. Any number of processes may work on one folder.

    **Arguments:**

    - `folder`: the folder, which need not exist yet.

    **Attributes:**

    - `configuration`: the file that states the grid.
    - `trajectories`: the trajectories that are kept.
    - `modules`: the file that says which modules of the user's its runs were made with.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = as_path(folder, "the folder", RunFolderError)
        self.trajectories = Trajectories(self.folder)
        self.configuration = ConfigurationFile(self.folder)
        self.modules = ModulesFile(self.folder)
        self._index = Index(self.folder / _INDEX)
        self._files = CellFiles(self.folder, self._index)

    def begin(self, spec: Specification, *, resume: bool = False) -> None:
        """Make the folder and write the configuration.

        A folder that holds another grid is used if this grid has all cells of that one (and perhaps more, because values and
        seeds may be added). A configuration that states the same grid is left as it is.

        **Arguments:**

        - `spec`: the grid.
        - `resume`: True if nobody else works on the folder. Then only the finished cells in it must belong to this grid.

        **Raises:** `RunFolderError` if the folder holds other things, a grid with cells that this one does not have,
        trajectories of another grid, or a configuration that gnflow did not write and that would be replaced; also if the
        folder cannot be written.
        """
        try:
            if not self._fits(spec, resume):
                self.folder.mkdir(parents=True, exist_ok=True)
                # The lock makes the second of two sweeps that begin here at once see the configuration of the first.
                with self._index.locked():
                    if not self._fits(spec, resume):
                        self.configuration.write(spec)
            self.modules.write(spec.sources)
        except OSError as error:
            raise error if isinstance(error, RunFolderError) else cannot_write(self.folder, error) from error

    def require_fit(self, spec: Specification, *, resume: bool = False) -> None:
        """Check that `begin` would accept this grid, without writing anything. **Raises:** the errors of `begin`."""
        try:
            self._fits(spec, resume)
        except OSError as error:
            raise error if isinstance(error, RunFolderError) else cannot_write(self.folder, error) from error

    def _fits(self, spec: Specification, resume: bool) -> bool:
        """Whether the configuration of this grid is already in the folder.

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
        """A sentence for each file that this object has set aside, as printed on the standard error output."""
        return self._files.set_aside

    def read_specification(self) -> Specification:
        """The grid that this folder holds. **Raises:** `RunFolderError` if its configuration is missing or damaged."""
        spec = self.configuration.read()
        absent = {str(cell.problem["path"]): None for cell in spec.cells if cell.lacks_data}
        if absent:
            print(
                f"gnflow: {', '.join(absent)} cannot be read; cells that were computed with it are not recognised.",
                file=sys.stderr,
            )
        return spec

    def holds(self, content_hash: str) -> bool:
        """Whether the file or the trajectory of a cell exists. They are not opened."""
        return self.place(content_hash).is_file() or content_hash in self.trajectories.finished()

    def place(self, content_hash: str) -> Path:
        """Where a cell's file belongs."""
        return self._files.place(content_hash)

    def read(self, content_hash: str) -> xr.Dataset:
        """The data set of a finished cell: what was measured along its run, and in the attributes how it ended.

        **Raises:** `RunFolderError` if the file is missing or damaged.
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
        """Keep a finished cell, with its whole trajectory if the outcome has one.

        **Returns:** its record. A trajectory that cannot be kept here is kept in another folder, which its record and the
        standard error output name. The trajectory of an interrupted run is kept apart from the finished ones, and there is no
        record (None).

        **Raises:** `RunFolderError` if a cell's file cannot be written (full disk, read-only folder). Nothing half-written is
        left then.
        """
        if outcome.kept is not None:
            return self._put_trajectory(outcome, outcome.kept)
        place = self.place(outcome.content_hash)
        try:
            self._files.make_folder_of(place)
            draft = draft_of(place, outcome.payload)
            try:
                # The lock covers both the file and its line. If two processes finish one cell, the last line then describes
                # the file that is there.
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
        with contextlib.suppress(OSError):  # without a line in the index the record is derived from the run again
            payload, changed = (place / DATA_FILE).read_bytes(), (place / DATA_FILE).stat().st_mtime_ns
            found = {"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest(), "mtime_ns": changed}
            with self._index.locked() as lines:
                lines.append([{**outcome.record, **found}])
            # An earlier attempt that raised an error may have left a file.
            self.place(outcome.content_hash).unlink(missing_ok=True)
        return outcome.record

    def write_summary(self, spec: Specification, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Write summary.csv, with a line for each run that has a record. **Raises:** `RunFolderError` if that fails."""
        file = self.folder / "summary.csv"
        try:
            write_whole(file, as_csv(rows_of(spec, records)))
        except OSError as error:
            raise cannot_write(file, error) from error

    def finished(self, cells: Iterable[str], check: bool = False) -> dict[str, dict[str, Any]]:
        """The records of the finished ones among `cells`, by content hash.

        A file that fits its line in the index is not opened. Any other file is checked as a whole, and then entered in the
        index or set aside, so that its cell counts as missing. A trajectory that cannot be read stays where it is, and its
        record has the code "error". Files of cells of other sweeps are left alone. Other files among the cells are set aside,
        and temporary files of killed writers are removed.

        **Arguments:**

        - `cells`: content hashes.
        - `check`: whether to read every file and compare its checksum and its line in the index. The number of wrong lines is
          printed on the standard error output, and the content of the files counts.
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
        """The record of a file that does not fit the index, or None if the file is set aside.

        **Arguments:**

        - `file`: the file.
        - `content_hash`: the cell.
        - `line`: its line in the index, which is believed if the file has the checksum in it.
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
            return None  # another process has set the file aside
        except PermissionError as error:
            raise RunFolderError(f"{file.path} cannot be read: permission is denied.") from error
        except OSError as error:  # from the machine or the disk, or gnflow's own error for a damaged file
            if error.errno in _PASSING:
                raise RunFolderError(
                    f"{file.path} cannot be read now: {error.strerror}; when that has passed, give the same command again."
                ) from error
            self._files.put_aside(file.path, str(error), file.mtime_ns)
            return None

    def _examine_run(self, file: Found, run: KeptRun, line: dict[str, Any] | None) -> dict[str, Any]:
        """The record of a trajectory that does not fit the index; the record of an error if it cannot be read."""
        try:
            payload = file.path.read_bytes()
            if line is not None and line.get("sha256") == hashlib.sha256(payload).hexdigest():
                return {**line, "mtime_ns": file.mtime_ns}
            return {**record_of(run.cell(), payload), "mtime_ns": file.mtime_ns}
        except OSError as error:  # gnflow's own errors for damaged folders are among them
            text = f"{error} Remove {run.place}, and the same command computes it again."
            return outcome_of_code(run.spec, ERROR, text).record

    def _enter(self, again: dict[str, tuple[Found, dict[str, Any]]]) -> None:
        if not again:
            return
        try:
            with self._index.locked() as lines:
                # Files that another process has replaced meanwhile are left out: it has entered them itself.
                lines.append(
                    [record for file, record in again.values() if file.path.stat().st_mtime_ns == file.mtime_ns]
                )
        except OSError:
            pass  # a read-only folder can still be read

    def _require_all_cells(self, spec: Specification) -> None:
        """Check that `spec` has all cells of the folder's grid. **Raises:** `RunFolderError`."""
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
        """Check that `spec` has all finished cells of the folder, except failed ones. **Raises:** `RunFolderError`."""
        others = self._files.find().keys() - set(spec.hashes)
        finished = sorted(key for key, record in self.finished(others).items() if not record["failed"])
        if finished:
            raise RunFolderError(
                f"{self.folder} holds {len(finished)} finished cells that are not in this configuration (such as "
                f"{self.place(finished[0])}). Choose another folder; or run {self.configuration.path} to go on with them."
            )


def _agree(line: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether a line of the index agrees with the record from the cell's file. Lines of earlier versions have fewer fields."""
    return all(line[name] == value for name, value in record.items() if name in line)
