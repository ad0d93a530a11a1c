"""The folder of a sweep: one file for each cell, an index, and nothing that a kill can spoil."""

import dataclasses
import errno
import hashlib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr

from .._core import (
    ConfigError,
    RunFolderError,
    as_path,
    cannot_write,
    draft_of,
    is_temporary,
    remove_if_abandoned,
    sync_folder,
    write_whole,
)
from ..config import Specification, read_toml, to_toml
from ._cell import CellOutcome, read_cell
from ._index import Index

SWEEP_FILE = "sweep.toml"
_CELLS = "cells"
_INDEX = "index.jsonl"
_SET_ASIDE = "set_aside"
_KNOWN = (SWEEP_FILE, _CELLS, _INDEX, _SET_ASIDE)
_LARGEST_CELL = 2**32  # bytes; a file may be larger than the memory of who reads it, and hold nothing
_PROBE_BYTES = 65536  # as much as a cell's file may have; a full disk has not even that
# Errors that say nothing about the file: too many open files, no memory, a network file system that lost track.
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)
_CELL_FILE = re.compile(r"(?P<hash>[0-9a-f]{16})\.nc")


@dataclasses.dataclass(frozen=True)
class _Found:
    """A cell's file as the folder lists it."""

    path: Path
    size: int
    mtime_ns: int

    def fits(self, line: dict[str, Any] | None) -> bool:
        """Whether `line` of the index is about this very file."""
        return line is not None and (line.get("size"), line.get("mtime_ns")) == (self.size, self.mtime_ns)


class SweepStore:
    """Where the cells of a sweep are kept.

    - `sweep.toml`: the sweep as it was run, its size and overrides applied;
    - `cells/ab/<content hash>.nc`: a file for each finished cell, failed ones included (`SweepStore.read`);
    - `index.jsonl`: a line for each of them, so that they need not be opened; it may be deleted;
    - `set_aside/`: files that were found damaged or are not the cell their name says.

    A file appears whole or not at all, and is never changed. Any number of processes may work on one folder.

    **Arguments:** `folder`: need not exist yet. **Attributes:** `set_aside`: what this object has set aside so far, a
    sentence for each file, which is also printed on the standard error output.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = as_path(folder, "the folder", RunFolderError)
        self.set_aside: list[str] = []
        self._index = Index(self.folder / _INDEX)

    def begin(self, spec: Specification) -> None:
        """Make the folder and write the configuration.

        A folder that holds cells of a sweep is gone on with, if this one has all of that one's cells (and perhaps more:
        values and seeds may be added).

        **Raises:** `RunFolderError` if the folder holds other things, or a sweep that has cells this one has not, or cannot
        be written.
        """
        file = self.folder / SWEEP_FILE
        text = to_toml(spec.to_dict())
        try:
            if not self._fits(spec, file, text):
                self.folder.mkdir(parents=True, exist_ok=True)
                # Held, so that of two sweeps that begin here at once the second one sees the first.
                with self._index.locked():
                    if not self._fits(spec, file, text):
                        write_whole(file, text.encode())
        except OSError as error:
            raise error if isinstance(error, RunFolderError) else cannot_write(self.folder, error) from error

    def require_fit(self, spec: Specification) -> None:
        """Check that the folder may be begun with this sweep, and write nothing. **Raises:** as `begin`."""
        try:
            self._fits(spec, self.folder / SWEEP_FILE, to_toml(spec.to_dict()))
        except OSError as error:
            raise error if isinstance(error, RunFolderError) else cannot_write(self.folder, error) from error

    def _fits(self, spec: Specification, file: Path, text: str) -> bool:
        """Whether the configuration is there as it should be.

        **Raises:** `RunFolderError` if the folder is not for this sweep; `OSError` if it cannot be read.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise RunFolderError(f"{self.folder} is a file; choose a folder.")
        above = next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists())
        if not above.is_dir():
            raise RunFolderError(f"{self.folder} cannot be made, because {above} is a file; choose another folder.")
        if file.is_file():
            if file.read_bytes() == text.encode():
                return True
            self._require_all_cells(spec)
        elif self.folder.is_dir():
            others = sorted(
                entry.name
                for entry in self.folder.iterdir()
                if entry.name not in _KNOWN and not is_temporary(entry.name)
            )
            if others:
                raise RunFolderError(
                    f"{self.folder} holds other things ({', '.join(others[:3])}) and no {SWEEP_FILE}; choose another folder."
                )
        return False

    def require_writable(self) -> None:
        """Try to write, before anything is computed.

        **Raises:** `RunFolderError` if the folder cannot be written (full disk, read-only folder).
        """
        try:
            draft_of(self.folder / _INDEX, bytes(_PROBE_BYTES)).unlink()
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def read_specification(self) -> Specification:
        """The sweep that this folder holds. **Raises:** `RunFolderError` if there is none, or a damaged one."""
        file = self.folder / SWEEP_FILE
        if not file.is_file():
            raise RunFolderError(f"{self.folder} holds no sweep: there is no {SWEEP_FILE} in it.")
        try:
            spec = Specification.from_dict(read_toml(file))
        except ConfigError as error:
            raise RunFolderError(f"{file} cannot be read: {error}") from error
        absent = {str(cell.problem["path"]): None for cell in spec.cells if cell.lacks_data}
        if absent:
            print(
                f"gnflow: {', '.join(absent)} cannot be read; cells that were computed with it are not recognised.",
                file=sys.stderr,
            )
        return spec

    def holds(self, content_hash: str) -> bool:
        """Whether a cell's file is there, unopened."""
        return self.place(content_hash).is_file()

    def place(self, content_hash: str) -> Path:
        """Where a cell's file belongs."""
        return self.folder / _CELLS / content_hash[:2] / f"{content_hash}.nc"

    def read(self, content_hash: str) -> xr.Dataset:
        """All that a finished cell holds: what was measured along its run, and in the attributes how it ended.

        **Raises:** `RunFolderError` if the file is missing or is not what it should be.
        """
        place = self.place(content_hash)
        try:
            return read_cell(place.read_bytes(), content_hash)[0]
        except OSError as error:
            raise RunFolderError(f"{place}: {error}") from error

    def put(self, outcome: CellOutcome) -> None:
        """Keep a finished cell, for good.

        **Raises:** `RunFolderError` if it cannot be written (full disk, read-only folder); then nothing half-written stays.
        """
        place = self.place(outcome.content_hash)
        try:
            self._make_folder_of(place)
            draft = draft_of(place, outcome.payload)
            try:
                # Held over both, so that the line is about the file that is there if two processes finish one cell.
                with self._index.locked() as lines:
                    os.replace(draft, place)
                    sync_folder(place.parent)
                    lines.append([{**outcome.record, "mtime_ns": place.stat().st_mtime_ns}])
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise cannot_write(place, error) from error

    def finished(self, cells: Iterable[str], check: bool = False) -> dict[str, dict[str, Any]]:
        """The records of those of `cells` that are finished, by content hash.

        A file that fits its line in the index is not opened; any other is checked as a whole, and then entered in the index
        or set aside, so that its cell counts as missing. Files of other sweeps' cells are left alone; what else is found
        among the cells is set aside, and what killed writers left is removed.

        **Arguments:** `cells`: content hashes; `check`: read every file, and compare its checksum and its line in the index;
        how many lines were wrong is printed on the standard error output, and the files hold.
        """
        found = self._list()
        lines = self._index.read()
        records: dict[str, dict[str, Any]] = {}
        again: dict[str, tuple[_Found, dict[str, Any]]] = {}
        wrong: list[str] = []
        for content_hash in cells:
            file = found.get(content_hash)
            if file is None:
                continue
            line = lines.get(content_hash)
            if file.fits(line) and not check:
                assert line is not None
                records[content_hash] = line
                continue
            record = self._examine(file, content_hash, None if check else line)
            if record is not None:
                records[content_hash] = record
                if not file.fits(line) or record != line:
                    again[content_hash] = (file, record)
                    wrong += [content_hash] if file.fits(line) else []
        self._enter(again)
        if wrong:
            print(
                f"gnflow: {self.folder / _INDEX} said otherwise of {len(wrong)} cells (such as {wrong[0]}) than their files; "
                "the files hold.",
                file=sys.stderr,
            )
        return records

    def _make_folder_of(self, place: Path) -> None:
        if not place.parent.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            for above in (place.parent.parent, self.folder):
                sync_folder(above)

    def _examine(self, file: _Found, content_hash: str, line: dict[str, Any] | None) -> dict[str, Any] | None:
        """The record of a file that the index does not vouch for, or None if it is set aside.

        **Arguments:** `line`: of the index, to be believed if the file has its checksum.
        """
        if file.size > _LARGEST_CELL:
            self._put_aside(file.path, f"it has {file.size} bytes, more than a cell of a sweep", file.mtime_ns)
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
            self._put_aside(file.path, str(error), file.mtime_ns)
            return None

    def _enter(self, again: dict[str, tuple[_Found, dict[str, Any]]]) -> None:
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

    def _list(self) -> dict[str, _Found]:
        """The cells' files by content hash; abandoned temporary files are removed, strangers set aside."""
        found: dict[str, _Found] = {}
        cells = self.folder / _CELLS
        for folder in [entry for entry in _scan(cells) if not entry.name.startswith(".")]:
            if not folder.is_dir():
                self._put_aside(Path(folder.path), "it is no cell of a sweep")
                continue
            for entry in _scan(Path(folder.path)):
                match = _CELL_FILE.fullmatch(entry.name)
                if match is not None and match["hash"][:2] == folder.name and entry.is_file():
                    try:
                        stat = entry.stat()
                    except FileNotFoundError:
                        continue  # another process has set it aside meanwhile
                    found[match["hash"]] = _Found(Path(entry.path), stat.st_size, stat.st_mtime_ns)
                elif is_temporary(entry.name):
                    remove_if_abandoned(Path(entry.path))
                elif not entry.name.startswith("."):
                    self._put_aside(Path(entry.path), "it is no cell of a sweep, or not where it belongs")
        for entry in _scan(self.folder):
            remove_if_abandoned(Path(entry.path))
        return found

    def _put_aside(self, path: Path, reason: str, mtime_ns: int | None = None) -> None:
        """Move what should not be among the cells out of the way, and say so.

        **Arguments:** `mtime_ns`: when the file changed last; one that has changed since is left where it is.
        """
        aside = self.folder / _SET_ASIDE
        reason = reason.rstrip(".")
        try:
            # Held, so that no other process puts a good file there between the last look and the renaming.
            with self._index.locked():
                if mtime_ns is not None and path.stat().st_mtime_ns != mtime_ns:
                    return
                aside.mkdir(exist_ok=True)
                number = 0
                while (target := aside / (f"{path.name}.{number}" if number else path.name)).exists():
                    number += 1
                path.rename(target)
            told = f"{path}: {reason}; it is set aside as {target}."
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:
            told = f"{path}: {reason}; it is passed over, and cannot be set aside ({error.strerror})."
        self.set_aside.append(told)
        print(f"gnflow: {told}", file=sys.stderr)

    def _require_all_cells(self, spec: Specification) -> None:
        """**Raises:** `RunFolderError` if the folder's sweep has cells that `spec` has not."""
        there = self.read_specification()
        mine = set(spec.hashes)
        missing = [
            cell for cell, content_hash in zip(there.cells, there.hashes, strict=True) if content_hash not in mine
        ]
        if missing:
            raise RunFolderError(
                f"{self.folder} holds another sweep: {len(missing)} of its {len(there.cells)} cells are not in this one (such "
                f"as {missing[0].label}). Choose another folder; or run {self.folder / SWEEP_FILE} to go on with that sweep; "
                f"or remove that file to take over the cells that both have."
            )


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be read: {error.strerror}.") from error
