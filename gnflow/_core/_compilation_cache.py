"""Compiled programs on disk, for the next process."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from ._errors import ConfigError
from ._paths import as_path

SHORTEST_COMPILATION = 0.2  # seconds; JAX keeps what took longer


def compilation_cache(
    folder: bool | str | os.PathLike[str] = True, *, max_bytes: int = 2**30, shortest: float = SHORTEST_COMPILATION
) -> Path | None:
    """Keep compiled programs on disk from now on, so that the next process that needs them does not compile them again.

    A program is found by its text, the versions of JAX and its compiler, and the machine: another gnflow, or another shape, is
    another program. The command line and the workers of sweeps do this by themselves; scripts call it once at their beginning,
    before anything runs. It sets JAX's configuration for the whole process.

    **Arguments:** `folder`: True for the one that JAX_COMPILATION_CACHE_DIR names, otherwise gnflow/compiled in the user's
    cache (XDG_CACHE_HOME, ~/.cache by default); a folder; or False to keep nothing. `max_bytes`: how much the folder may
    hold when this is called: the programs that were longest not used are removed. `shortest`: in seconds, the compilations
    worth keeping.

    **Returns:** the folder; None for none, or where the usual one cannot be written.

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
    """The folder of compiled programs, made if need be; None for none, or where it cannot be written.

    **Arguments:** `setting`: True for JAX_COMPILATION_CACHE_DIR if that is set, otherwise gnflow's folder in the user's cache
    (XDG_CACHE_HOME, ~/.cache by default); False for none; or a folder; `argument`: the name of what the caller was given.

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
    """Remove the files that were longest not used until the others have at most `most` bytes."""
    found = []
    for file in folder.iterdir():
        try:
            known = file.stat()
        except OSError:  # another process has just removed it
            continue
        found.append((max(known.st_atime, known.st_mtime), known.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= most:
            return
        file.unlink(missing_ok=True)
        total -= size
