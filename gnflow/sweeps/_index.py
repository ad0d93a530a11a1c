"""The index of a sweep's folder: one line of JSON for each finished cell."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._cell import RECORD_KEYS

try:
    import fcntl
except ImportError:  # no such locks on Windows; appended lines stay whole there all the same
    fcntl = None


class Index:
    """The file index.jsonl. It only saves opening the cells' files: without it, everything is found again.

    A line is a cell's record and `mtime_ns`, the time of change of its file, by which a line that no longer fits is known.
    Several processes may append; of several lines about one cell the last holds.
    """

    def __init__(self, file: Path):
        self.file = file

    def read(self) -> dict[str, dict[str, Any]]:
        """The lines, by content hash. What is not a whole line (a writer was killed) is passed over."""
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return {}
        lines = {}
        for text in content.split(b"\n"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and line.keys() >= RECORD_KEYS and isinstance(line["hash"], str):
                lines[line["hash"]] = line
        return lines

    @contextmanager
    def locked(self) -> Iterator["Lines"]:
        """Hold the index for this process alone, and append to it.

        **Raises:** `OSError`.
        """
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Lines(descriptor)
        finally:
            os.close(descriptor)  # and with it the lock


class Lines:
    """An index that is held: lines can be appended."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append lines, all or none. **Raises:** `OSError`."""
        size = os.fstat(self.descriptor).st_size
        # A line that a killed writer left unfinished must not swallow the next one.
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
