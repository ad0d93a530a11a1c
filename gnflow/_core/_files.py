"""Files that appear whole or not at all, and what to say where they cannot be written."""

import errno
import itertools
import os
import re
import socket
import time
from pathlib import Path

from ._errors import RunFolderError

_counter = itertools.count()
_TEMPORARY = re.compile(r"\.(?P<name>.+)~(?P<host>[^~]+)~(?P<pid>\d+)~\d+\.tmp")
_PROBE_BYTES = 65536  # as much as a small file may have; a full disk has not even that
_STALE_SECONDS = 3600.0  # writing a file takes less than a second
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, or move the folder to another disk, and give the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space, and give the same command again",
    errno.EROFS: "it is on a read-only file system: copy the folder to where it can be written, or choose another one",
    errno.EACCES: "permission is denied: change the permissions, or choose another folder",
    errno.EPERM: "permission is denied: change the permissions, or choose another folder",
}


def write_whole(target: Path, content: bytes) -> None:
    """Write a file so that whatever happens (kill -9, power, a full disk) `target` is the old one or the new one.

    **Raises:** `OSError`; then nothing is left of the new file.
    """
    draft = draft_of(target, content)
    try:
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def draft_of(target: Path, content: bytes) -> Path:
    """`content` in a temporary file beside `target`, safely on the disk, to be renamed.

    **Raises:** `OSError`; then the temporary file is gone.
    """
    host = socket.gethostname().replace("~", "-") or "host"
    draft = target.with_name(f".{target.name}~{host}~{os.getpid()}~{next(_counter)}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def make_writable(folder: Path) -> None:
    """Make a folder, and try whether it can be written, before anything is computed for it.

    **Raises:** `RunFolderError` if not (full disk, read-only folder).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft_of(folder / "try", bytes(_PROBE_BYTES)).unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error


def sync_folder(folder: Path) -> None:
    """Have the names in `folder` on the disk, not only the files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file is one that `draft_of` makes."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_if_abandoned(file: Path) -> None:
    """Remove a temporary file whose writer is dead.

    The writer is dead if it ran on this machine and its process does not exist; of writers elsewhere only an hour tells.
    """
    found = _TEMPORARY.fullmatch(file.name)
    if found is None:
        return
    here = found["host"] == socket.gethostname().replace("~", "-")
    try:
        if not (here and not _is_running(int(found["pid"]))) and time.time() - file.stat().st_mtime < _STALE_SECONDS:
            return
        file.unlink(missing_ok=True)
    except OSError:
        pass  # somebody else's, or a read-only folder: it does no harm


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def cannot_write(place: Path, error: OSError) -> RunFolderError:
    """The error to raise where `place` cannot be written, with what to do about it."""
    reason = _REMEDIES.get(error.errno or 0, f"{error.strerror or error}")
    return RunFolderError(f"cannot write to {place}: {reason}.")
