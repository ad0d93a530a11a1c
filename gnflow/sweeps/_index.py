"""The index of a sweep's folder, with one line of JSON for each finished cell."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .._core import RunFolderError, read_json
from ._record import is_record

try:
    import fcntl
except ImportError:  # Windows does not have these locks; appended lines still stay whole there
    fcntl = None

_LONGEST_LINE = 2**20  # bytes; messages are cut at a few thousand characters


class Index:
    """The file index.jsonl. It only saves opening the cells' files; without it everything is read again from these.

    A line holds a cell's record and `mtime_ns`, the time of change of its file. A line with another time is out of date.
    Several processes may append lines. If there are several lines for a cell, the last one counts.
    """

    def __init__(self, file: Path):
        self.file = file

    def read(self) -> dict[str, dict[str, Any]]:
        """The lines by content hash.

        Incomplete lines (of a writer that was killed) and lines that gnflow does not write are skipped, and their cells are
        read again.

        **Raises:** `RunFolderError` if the file cannot be read.
        """
        lines = {}
        try:
            with self.file.open("rb") as content:
                for text in _short_lines(content):
                    line = _line(text)
                    if line is not None:
                        lines[line["hash"]] = line
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise RunFolderError(f"{self.file} cannot be read: {error.strerror}.") from error
        return lines

    @contextmanager
    def locked(self) -> Iterator["Lines"]:
        """Lock the index for this process, to append to it or to change the files of cells. **Raises:** `OSError`."""
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Lines(descriptor)
        finally:
            os.close(descriptor)  # this also releases the lock


class Lines:
    """A locked index, to which lines can be appended."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append all lines or none. **Raises:** `OSError`."""
        size = os.fstat(self.descriptor).st_size
        # If a killed writer left an unfinished line, a line break first, or the next line would become a part of it.
        torn = size > 0 and os.pread(self.descriptor, 1, size - 1) != b"\n"
        text = "".join(json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n" for record in records)
        content = (b"\n" if torn else b"") + text.encode()
        try:
            while content:
                content = content[os.write(self.descriptor, content) :]
            os.fsync(self.descriptor)
        except OSError:
            os.ftruncate(self.descriptor, size)
            raise


def _short_lines(content: IO[bytes]) -> Iterator[bytes]:
    """The lines that are not longer than any line that gnflow writes."""
    is_rest = False
    while text := content.readline(_LONGEST_LINE):
        is_whole = text.endswith(b"\n")
        if not is_rest and (is_whole or len(text) < _LONGEST_LINE):
            yield text
        is_rest = not is_whole


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        line = read_json(text, "the line")
    except RunFolderError:
        return None
    return line if is_record(line) else None
