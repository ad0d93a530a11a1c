"""The content of the data file of a problem, by which a run with it is told from a run with another."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def data_digest(problem: Mapping[str, Any]) -> str:
    """A digest of the file that a problem of kind "file" reads; empty for other kinds, and for a file that cannot be read."""
    if problem.get("kind") != "file":
        return ""
    try:
        file = Path(problem["path"])
        stat = file.stat()
        return _digest(file.absolute(), stat.st_size, stat.st_mtime_ns)
    except (KeyError, TypeError, ValueError, OSError):
        return ""  # making the problem says what is wrong


@functools.lru_cache(maxsize=1024)
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    # Size and time of change are there for the cache: a sweep asks for each of its cells.
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
