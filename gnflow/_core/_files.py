"""Write files whole or not at all, and say what to do where they cannot be written."""

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
    """Write a file so that `target` is the old or the new one, whatever happens (kill -9, a power cut, a full disk).

    **Raises:** `OSError`; then nothing is left of the new file.
    """
    draft = draft_of(target, content)
    try:
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)  # otherwise a power cut could undo the renaming


def draft_of(target: Path, content: bytes) -> Path:
    """Write `content` to a temporary file beside `target`, safely on the disk, which the caller renames.

    **Raises:** `OSError`; then the temporary file is removed.
    """
    # Host, process and counter make the name unique where several machines share the folder.
    host = socket.gethostname().replace("~", "-") or "host"
    draft = target.with_name(f".{target.name}~{host}~{os.getpid()}~{next(_counter)}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(content)
            # Renaming may reach the disk before the content does: without this a power cut could leave an empty file.
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
    """Make sure that the names in `folder` are on the disk, not only the content of its files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether `draft_of` makes files of such a name."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_if_abandoned(file: Path) -> None:
    """Remove a temporary file whose writer is dead.

    The writer is dead if it ran on this machine and its process does not exist. A file of another machine counts as abandoned
    after an hour.
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
        pass  # the file is somebody else's, or the folder is read-only: it does no harm there


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, and belongs to another user
        return True
    return True


def cannot_write(place: Path, error: OSError) -> RunFolderError:
    """The error to raise where `place` cannot be written, with what to do about it."""
    reason = _REMEDIES.get(error.errno or 0, f"{error.strerror or error}")
    return RunFolderError(f"cannot write to {place}: {reason}.")
