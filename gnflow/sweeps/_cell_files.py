"""The files of cells in a folder. Other processes and people may add and change files at any time."""

import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import Any

from .._core import RunFolderError, is_temporary, remove_if_abandoned, sync_folder
from ._index import Index

CELLS = "cells"
SET_ASIDE = "set_aside"
_CELL_FILE = re.compile(r"(?P<hash>[0-9a-f]{16})\.nc")


@dataclasses.dataclass(frozen=True)
class Found:
    """A cell's file as the folder lists it, with its size in bytes and its time of change in ns."""

    path: Path
    size: int
    mtime_ns: int

    def fits(self, line: dict[str, Any] | None) -> bool:
        """Whether `line` of the index describes this version of the file."""
        return line is not None and (line.get("size"), line.get("mtime_ns")) == (self.size, self.mtime_ns)

    @classmethod
    def of(cls, file: Path) -> "Found":
        """The entry of a file in any place. If there is no such file, the error comes when it is read."""
        try:
            stat = file.stat()
        except OSError:
            return cls(file, -1, -1)
        return cls(file, stat.st_size, stat.st_mtime_ns)


class CellFiles:
    """The files cells/ab/<content hash>.nc of a folder, and set_aside/ for files that should not be among them.

    **Arguments:**

    - `folder`: the folder of the sweep.
    - `index`: its index.

    **Attributes:**

    - `set_aside`: a sentence for each file that was set aside.
    """

    def __init__(self, folder: Path, index: Index):
        self.folder = folder
        self.set_aside: list[str] = []
        self._index = index

    def place(self, content_hash: str) -> Path:
        """Where a cell's file belongs."""
        return self.folder / CELLS / content_hash[:2] / f"{content_hash}.nc"

    def make_folder_of(self, place: Path) -> None:
        """Make the folder of `place`, and write it to the disk, so that it survives a power failure. **Raises:** `OSError`."""
        if not place.parent.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            for above in (place.parent.parent, self.folder):
                sync_folder(above)

    def find(self) -> dict[str, Found]:
        """The cells' files by content hash. Abandoned temporary files are removed, and other files set aside."""
        found: dict[str, Found] = {}
        cells = self.folder / CELLS
        for folder in [entry for entry in _scan(cells) if not entry.name.startswith(".")]:
            if not folder.is_dir():
                self.put_aside(Path(folder.path), "it is no cell of a sweep")
                continue
            for entry in _scan(Path(folder.path)):
                match = _CELL_FILE.fullmatch(entry.name)
                if match is not None and match["hash"][:2] == folder.name and entry.is_file():
                    try:
                        stat = entry.stat()
                    except FileNotFoundError:
                        continue  # another process has set it aside meanwhile
                    found[match["hash"]] = Found(Path(entry.path), stat.st_size, stat.st_mtime_ns)
                elif is_temporary(entry.name):
                    remove_if_abandoned(Path(entry.path))
                elif not entry.name.startswith("."):
                    self.put_aside(Path(entry.path), "it is no cell of a sweep, or not where it belongs")
        for entry in _scan(self.folder):
            remove_if_abandoned(Path(entry.path))
        return found

    def put_aside(self, path: Path, reason: str, mtime_ns: int | None = None) -> None:
        """Move a file that should not be among the cells out of the way, and print a note.

        **Arguments:**

        - `path`: the file or folder.
        - `reason`: why it is set aside.
        - `mtime_ns`: the time of its last known change. A file that has changed since is left where it is.
        """
        aside = self.folder / SET_ASIDE
        reason = reason.rstrip(".")
        try:
            # The lock keeps other processes from putting a good file there between the check and the renaming.
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


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be read: {error.strerror}.") from error
