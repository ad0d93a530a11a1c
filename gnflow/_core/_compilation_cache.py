"""Keep compiled programs on disk for the next process."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from ._errors import ConfigError
from ._paths import as_path

SHORTEST_COMPILATION = 0.2  # seconds; programs that took longer to compile are kept


def compilation_cache(
    folder: bool | str | os.PathLike[str] = True, *, max_bytes: int = 2**30, shortest: float = SHORTEST_COMPILATION
) -> Path | None:
    """Keep compiled programs on disk from now on, so that the next process that needs them does not compile them again.

    A program is found by its text, the versions of JAX and its compiler, and the machine: another version of gnflow, or another
    shape, makes another program. The command line and the workers of sweeps turn the cache on by themselves. A script calls
    this function once at its beginning, before anything runs. It sets JAX's configuration for the whole process.

    **Arguments:**

    - `folder`: a folder; True for the one that JAX_COMPILATION_CACHE_DIR names, or gnflow/compiled in the user's cache
      (XDG_CACHE_HOME, ~/.cache by default) if it names none; False to keep nothing.
    - `max_bytes`: how many bytes the folder may hold when this is called. Beyond, the programs that were last used longest
      ago are removed.
    - `shortest`: in seconds; programs that took longer to compile are kept.

    **Returns:** the folder, or None if nothing is kept (False, or a default folder that cannot be written).

    **Raises:** `ConfigError` if a folder that was asked for by name cannot be made.
    """
    place = compilation_cache_folder(folder, "folder")
    if place is not None:
        _trim(place, max_bytes)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)
    jax.config.update("jax_compilation_cache_dir", None if place is None else str(place))
    jax_cache.reset_cache()  # JAX looks for the folder once, at its first compilation
    return place


def compilation_cache_folder(setting: bool | str | os.PathLike[str], argument: str) -> Path | None:
    """The folder of compiled programs, which is made if it does not exist; None for False, or where it cannot be written.

    **Arguments:**

    - `setting`: as `folder` of `compilation_cache`.
    - `argument`: what messages call the setting.

    **Raises:** `ConfigError` if a folder that was asked for by name cannot be made.
    """
    if setting is False:
        return None
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    usual = os.environ.get("JAX_COMPILATION_CACHE_DIR") or user / "gnflow" / "compiled"
    folder = Path(usual).absolute() if setting is True else as_path(setting, argument, ConfigError).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if setting is not True:
            raise ConfigError(
                f"{argument} = {str(setting)!r} cannot be made a folder ({error.strerror}); choose another, or False."
            ) from error
        return None
    return folder if os.access(folder, os.W_OK) else None


def _trim(folder: Path, most: int) -> None:
    """Remove the files that were last used longest ago until the others have at most `most` bytes."""
    found = []
    for file in folder.iterdir():
        try:
            known = file.stat()
        except OSError:  # another process has just removed it
            continue
        # Many file systems do not record when a file is read; then the time of writing is all there is.
        found.append((max(known.st_atime, known.st_mtime), known.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= most:
            return
        file.unlink(missing_ok=True)
        total -= size
