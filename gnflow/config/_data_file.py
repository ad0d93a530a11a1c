"""Digests of a problem's data files, which distinguish a run with these files from a run with others."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..problems import data_file_kinds
from ._own_parts import is_reference


def has_data_files(problem: Mapping[str, Any]) -> bool:
    """Whether a problem of this kind reads files of the user. One of the user's own does if it has an option `path`."""
    return problem.get("kind") in data_file_kinds or _is_own_with_path(problem)


def _is_own_with_path(problem: Mapping[str, Any]) -> bool:
    return is_reference(problem.get("kind")) and isinstance(problem.get("path"), str)


def _files_in(path: str, **_: Any) -> tuple[Path, ...]:
    """The file, or all files in the folder, that a problem of the user's own reads."""
    place = Path(path)
    return tuple(sorted(file for file in place.rglob("*") if file.is_file())) if place.is_dir() else (place,)


def data_digest(problem: Mapping[str, Any]) -> str:
    """A digest of the files that a problem reads. It is empty for a kind without files, and if they cannot be read."""
    if not has_data_files(problem):
        return ""
    options = {name: option for name, option in problem.items() if name != "kind"}
    try:
        files_of = data_file_kinds.get(problem["kind"], _files_in)
        digests = [_digest_of(file) for file in files_of(**options)]
    except (TypeError, ValueError, OSError):
        return ""  # the error is reported when the problem is made
    # The files have a fixed order and digests of equal length, so that different lists have different texts.
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _digest_of(file: Path) -> str:
    stat = file.stat()
    return _digest(file.absolute(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    # Size and time of change are only keys of the cache, which a sweep asks for each of its cells.
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
