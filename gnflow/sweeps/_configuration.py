"""The file in a folder that states its grid."""

from pathlib import Path

from .._core import ConfigError, RunFolderError, write_whole
from ..config import Specification, read_sweep, read_toml, to_toml

CONFIG_FILE = "config.toml"
OLDER_FILE = "sweep.toml"  # its name for a sweep in version 0.1.0
_MARK = "# Written by gnflow: the configuration as it was run, size and overrides applied.\n"
_MARKS = "# Written by gnflow"  # the beginning of the mark: earlier versions ended it differently
# Version 0.1.0 wrote a file without a mark, which is recognised by the files beside it.
_BESIDE = ("runs", "cells", "index.jsonl", "summary.csv", "unfinished", "interrupted")


class ConfigurationFile:
    """The file config.toml of a folder, written by gnflow or by a person.

    **Arguments:**

    - `folder`: the folder, which need not exist.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    @property
    def path(self) -> Path:
        """The path of the file, or of that of version 0.1.0 if only that exists."""
        older = self._folder / OLDER_FILE
        return older if older.is_file() and not (self._folder / CONFIG_FILE).is_file() else self._folder / CONFIG_FILE

    def exists(self) -> bool:
        """Whether the file exists."""
        return self.path.is_file()

    def read(self) -> Specification:
        """The grid that the file states. **Raises:** `RunFolderError` if it is missing or damaged."""
        if not self.exists():
            raise RunFolderError(f"{self._folder} holds no runs: there is no {CONFIG_FILE} in it.")
        try:
            return read_sweep(self.path, imports=False)
        except ConfigError as error:
            raise RunFolderError(f"{self.path} cannot be read: {error}") from error

    def says(self, spec: Specification) -> bool:
        """Whether the file states exactly this grid, also with comments that a person added. **Raises:** `OSError`."""
        text = to_toml(spec.to_dict())
        if _without_mark(self.path.read_bytes()) == text.encode():
            return True
        try:
            return to_toml(self.read().to_dict()) == text
        except RunFolderError:
            return False

    def is_gnflows(self) -> bool:
        """Whether gnflow wrote the file as it is, so that nothing that a person wrote is lost by replacing it."""
        try:
            content = self.path.read_bytes()
            as_written = to_toml(read_toml(self.path)).encode()
        except (OSError, ValueError):
            return False
        if _without_mark(content) != as_written:
            return False
        return content != as_written or any((self._folder / name).exists() for name in _BESIDE)

    def write(self, spec: Specification) -> None:
        """Write the file, whole or not at all. **Raises:** `OSError`."""
        write_whole(self.path, (_MARK + to_toml(spec.to_dict())).encode())


def _without_mark(content: bytes) -> bytes:
    return content.partition(b"\n")[2] if content.startswith(_MARKS.encode()) else content
