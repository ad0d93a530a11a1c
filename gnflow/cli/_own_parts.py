"""Runs with parts of the user's own: loaded with what their modules make, once these are imported."""

from collections.abc import Sequence
from pathlib import Path

from .._core import ConfigError, GnflowError, RunFolderError
from ..simulate import Trajectory, load, parts_to_pass
from ..sweeps import ModulesFile, import_modules, kept_run


def import_for(folders: Sequence[Path], modules: Sequence[str], accepted: Sequence[str]) -> None:
    """Import the modules that the user named, after their digests were compared with those in the folders.

    The arguments are those of `--import` and `--accept-digest`.
    """
    if accepted and not modules:
        raise ConfigError("--accept-digest is given without --import; name the module with --import too.")
    import_modules(folders, modules, accepted)


def load_with_parts(folder: Path, accepted: Sequence[str]) -> Trajectory:
    """A saved run. Parts that gnflow does not rebuild are made of its specification, if their modules are imported.

    **Raises:** `RunFolderError` if there is no run or a damaged one, or if a module is not imported; `ConfigError` if one is
    not what it was.
    """
    needed = parts_to_pass(folder)
    modules = ModulesFile(folder)
    if not needed or not modules.read():
        return load(folder)
    spec = kept_run(folder).spec
    missing = sorted(modules.read().keys() - spec.sources.keys())
    if missing:
        raise RunFolderError(
            f"{folder}: its {' and '.join(needed)} came from {', '.join(missing)}, which a folder alone does not import; give "
            f"{' '.join(f'--import {name}' for name in missing)}."
        )
    modules.require_same(spec.sources, accepted)
    try:
        made = spec.prepare()
    except GnflowError as error:
        raise RunFolderError(f"{folder}: its {' and '.join(needed)} cannot be made again: {error}") from error
    return load(folder, **{name: getattr(made, name) for name in needed})
