"""The file of a folder that says which modules of the user's its runs were made with."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._core import ConfigError, RunFolderError, as_path, read_json, write_whole
from ..config import Source, find_module, import_module

MODULES_FILE = "modules.json"
_LARGEST = 2**20  # bytes


def modules_text(sources: Mapping[str, Source]) -> str:
    """The content of the file for runs made with these modules."""
    return _text({name: [source.record()] for name, source in sources.items()})


class ModulesFile:
    """The file modules.json: for each module the versions and digests that runs were made with, the latest last.

    **Arguments:**

    - `folder`: the folder of a grid or of one run. The file is only there if parts of the user's were used.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._file = folder / MODULES_FILE

    def read(self) -> dict[str, list[dict[str, Any]]]:
        """The content; empty if the file does not exist. **Raises:** `RunFolderError` if it is damaged."""
        if not self._file.is_file():
            return {}
        try:
            with self._file.open("rb") as stream:
                table = read_json(stream.read(_LARGEST), str(self._file))
        except OSError as error:
            if isinstance(error, RunFolderError):
                raise
            raise RunFolderError(f"{self._file} cannot be read: {error.strerror}.") from error
        known = isinstance(table, dict) and all(isinstance(entries, list) and entries for entries in table.values())
        if not known or not all(_is_entry(entry) for entries in table.values() for entry in entries):
            raise RunFolderError(f"{self._file} is damaged: it is no table of digests by module.")
        return table

    def require_same(self, sources: Mapping[str, Source], accepted: Iterable[str]) -> None:
        """Check that modules are those of the runs in the folder, where these used them.

        **Arguments:**

        - `sources`: modules as they are now.
        - `accepted`: digests that are good all the same.

        **Raises:** `ConfigError` that names both digests; `RunFolderError` for a damaged file.
        """
        known = self.read()
        for name in sources.keys() & known.keys():
            now = sources[name].sha256[:12]
            sources[name].require_digest(
                known[name][-1]["sha256"],
                f"the runs of {self._folder}",
                f"Restore {sources[name].file}; or choose another folder; or give --accept-digest {now} (in a script "
                f"accept_digests=[{now!r}]), and what is finished stays as it was computed.",
                accepted,
            )

    def write(self, sources: Mapping[str, Source]) -> None:
        """Add modules that are not the latest in the file. **Raises:** `OSError`."""
        known = self.read()
        for name, source in sources.items():
            if known.get(name, [{}])[-1].get("sha256") != source.sha256:
                known[name] = [*known.get(name, []), source.record()]
        if known and known != self.read():
            write_whole(self._file, _text(known).encode())


def import_modules(folders: Sequence[Path], names: Iterable[str], accepted: Iterable[str] = ()) -> None:
    """Import modules that runs were made with, after their digests were compared with those in all folders that record them.

    They are looked for in the working directory and among what is installed, and not in the folders of the runs.

    **Arguments:**

    - `folders`: the folders of grids or of single runs.
    - `names`: the modules, or their files.
    - `accepted`: digests that are good although they are not the recorded ones.

    **Raises:** `RunFolderError` for a module that no run used; `ConfigError` for one that is missing, would hide another,
    was changed or cannot be imported.
    """
    files, accepted = [ModulesFile(folder) for folder in folders], tuple(accepted)
    known = sorted({name for file in files for name in file.read()})
    sources = []
    for given in names:
        path = as_path(given, "--import", ConfigError)
        is_file = path.suffix == ".py"
        name = path.stem if is_file else given
        if name not in known:
            used = f"their modules are {', '.join(known)}" if known else "they used no module of yours"
            raise RunFolderError(
                f"the runs of {', '.join(map(str, folders))} record no module {name!r} ({used}); leave --import {given} out."
            )
        try:
            source = find_module(name, [path.parent if is_file else Path()])
        except ConfigError as error:
            raise ConfigError(f"{error} If it is elsewhere, name its file: --import FOLDER/{name}.py.") from error
        for file in files:
            file.require_same({name: source}, accepted)
        sources.append(source)
    for source in sources:
        import_module(source)


def _text(table: Mapping[str, list[dict[str, Any]]]) -> str:
    return json.dumps(dict(sorted(table.items())), indent=1) + "\n"


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str)
