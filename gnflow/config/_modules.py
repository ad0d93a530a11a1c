"""Modules of the user's whose parts a configuration names: found, compared by their digests, and only then imported.

Nothing here is imported because a folder of runs says so. Either the user gives a configuration to run (`importing_from`), or
names the module (`import_module`).
"""

import contextlib
import contextvars
import dataclasses
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import sys
import traceback
import types
from collections.abc import Iterable, Iterator
from pathlib import Path

from .._core import ConfigError, nearest_name, on_one_line

_SHOWN = 12  # digits of a digest that tell it from another
_SHORTEST = 8  # digits by which a digest may be accepted

_PYTHONS_OWN = (
    importlib.machinery.BuiltinImporter,
    importlib.machinery.FrozenImporter,
    importlib.machinery.PathFinder,
)

_imported: dict[str, "Source"] = {}  # by module, as it was when it was imported
_added: set[Path] = set()  # folders of the user's that were added to Python's path
_search: contextvars.ContextVar["_Search | None"] = contextvars.ContextVar("search", default=None)


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of a module.

    **Attributes:**

    - `name`: the module, such as "my_module" or "my_package.flows".
    - `file`: its file.
    - `folder`: the folder of the user's that it was found in; None for an installed package.
    - `version`: the version of the installed package; None if it is not installed.
    - `sha256`: the digest of its file. If the module is a package, or one in a package of the user's, it is the digest of all
      Python files of the package.
    """

    name: str
    file: Path
    folder: Path | None
    version: str | None
    sha256: str

    def record(self) -> dict[str, str | None]:
        """What a folder of runs keeps of it."""
        return {"version": self.version, "sha256": self.sha256}

    def require_digest(self, recorded: str, where: str, remedy: str, accepted: Iterable[str] = ()) -> None:
        """Check that the module is what it was.

        **Arguments:**

        - `recorded`: the digest that it had.
        - `where`: who had it, for the message.
        - `remedy`: a sentence that ends the message.
        - `accepted`: beginnings of digests that are good all the same, of at least 8 digits.

        **Raises:** `ConfigError` that names both digests.
        """
        if self.sha256 != recorded and not any(self.sha256.startswith(one) for one in _checked(accepted)):
            raise ConfigError(
                f"{self.name} has the digest {self.sha256[:_SHOWN]} here, and {recorded[:_SHOWN]} in {where}: its source was "
                f"changed. {remedy}"
            )


@contextlib.contextmanager
def importing_from(*folders: Path) -> Iterator[None]:
    """Within, `imported_module` may import modules, which are looked for in `folders` and then among what is installed."""
    token = _search.set(_Search(folders))
    try:
        yield
    finally:
        _search.reset(token)


@dataclasses.dataclass(frozen=True)
class _Search:
    """Folders to look in, and the modules found so far: a grid asks for each of them many thousand times."""

    folders: tuple[Path, ...]
    found: dict[str, types.ModuleType] = dataclasses.field(default_factory=dict)

    def module(self, name: str) -> types.ModuleType:
        if name not in self.found:
            self.found[name] = import_module(find_module(name, self.folders))
        return self.found[name]


def imported_module(name: str) -> types.ModuleType | None:
    """The module, imported where that is permitted (`importing_from`); None where it is neither permitted nor done yet.

    **Raises:** `ConfigError` as `find_module` and `import_module`.
    """
    search = _search.get()
    if search is not None:
        return search.module(name)
    return sys.modules[name] if name in _imported else None


def imported_source(name: str) -> Source | None:
    """The source of a module that a configuration or the user had imported; None for any other module."""
    return _imported.get(name)


def find_module(name: str, folders: Iterable[Path]) -> Source:
    """Where a module is. Nothing is imported, not even the package that it is in.

    **Arguments:**

    - `name`: the module.
    - `folders`: the user's folders, in which it is looked for first.

    **Raises:** `ConfigError` if there is none, or if a file in one of the folders would hide an installed package or a module
    of Python's own.
    """
    top = name.partition(".")[0]
    folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))
    installed = _installed(top, folders)
    for folder in folders:
        own = importlib.machinery.PathFinder.find_spec(top, [str(folder)])
        if own is None or (own.origin is None and installed is not None):
            continue  # a folder without an __init__.py hides nothing
        hidden = installed is not None and not _is_same(own.origin, installed.origin)
        if own.origin is not None and (hidden or top in sys.stdlib_module_names):
            raise ConfigError(
                f"{own.origin} would hide {_place(top, installed)}, which has the same name; rename the file, and name the "
                "module after it."
            )
        return _source(name, own, folder)
    if installed is None:
        looked = ", ".join(map(str, folders)) or "any folder of yours"
        names = [*(place.stem for folder in folders for place in folder.glob("*.py")), *_imported]
        near = f"; {nearest_name(name, names)}" if names else "."
        raise ConfigError(f"there is no module {name!r} in {looked}, and none is installed{near}{_of_suffix(name)}")
    return _source(name, installed, None)


def import_module(source: Source) -> types.ModuleType:
    """The module. It is imported once in a process.

    **Raises:** `ConfigError` if the import raises (with the file and the line), and if a module of this name was imported from
    another file, or before its file was changed.
    """
    known = _imported.get(source.name)
    if known is not None and known.file == source.file and known.sha256 != source.sha256:
        raise ConfigError(
            f"{source.file} was changed since this process imported it (digest {known.sha256[:_SHOWN]}, now "
            f"{source.sha256[:_SHOWN]}); start a new process."
        )
    there = sys.modules.get(source.name)
    if there is not None and not _is_same(str(source.file), getattr(there, "__file__", None)):
        raise ConfigError(
            f"a module {source.name!r} was imported from {getattr(there, '__file__', None)}, and {source.file} is meant; "
            "rename one of them, or start a new process."
        )
    if there is not None and known is None and _is_older(there, source):
        raise ConfigError(f"{source.file} was changed since this process imported it; start a new process.")
    if there is None:
        there = _import(source)
    _imported[source.name] = source
    return there


def import_exactly(source: Source) -> None:
    """Import a module as another process had it. **Raises:** `ConfigError` if there is another one here, or none."""
    known = _imported.get(source.name)
    here = find_module(source.name, () if source.folder is None else (source.folder,)) if known is None else known
    here.require_digest(
        source.sha256, "the process that drives the sweep", f"Give all processes the same {source.name}."
    )
    import_module(here)


def _checked(accepted: Iterable[str]) -> list[str]:
    digests = [str(one).lower() for one in accepted]
    for one in digests:
        if not _SHORTEST <= len(one) <= 64 or set(one) - set("0123456789abcdef"):
            raise ConfigError(
                f"{one!r:.80} is no digest; expected its first {_SHORTEST} to 64 hexadecimal digits, as the message shows them."
            )
    return digests


def _source(name: str, top: importlib.machinery.ModuleSpec, folder: Path | None) -> Source:
    spec: importlib.machinery.ModuleSpec | None = top
    parts = name.split(".")
    for depth in range(1, len(parts)):
        within = None if spec is None else spec.submodule_search_locations
        spec = (
            None
            if within is None
            else importlib.machinery.PathFinder.find_spec(".".join(parts[: depth + 1]), list(within))
        )
    if spec is None:
        raise ConfigError(f"there is no module {name!r} in {top.origin or parts[0]}.{_of_suffix(name)}")
    if spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"the module {name!r} has no source file; name a module that has one.")
    version = None if folder is not None else _version(parts[0])
    # The user's own package may change in any of its files. An installed one has a version.
    whole = top if version is None and top.submodule_search_locations is not None else spec
    return Source(name, Path(spec.origin).resolve(), folder, version, _digest(whole))


def _of_suffix(name: str) -> str:
    """What to write in the place of the name of a file, as a sentence after a space."""
    return f" Write {name.removesuffix('.py')} for the file {name}." if name.endswith(".py") else ""


def _digest(spec: importlib.machinery.ModuleSpec) -> str:
    """The SHA-256 digest of a file, or of all Python files of a package."""
    if spec.submodule_search_locations is None:
        assert spec.origin is not None
        return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    found = hashlib.sha256()
    for place in spec.submodule_search_locations:
        for file in sorted(Path(place).rglob("*.py")):
            found.update(
                f"{file.relative_to(place).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
            )
    return found.hexdigest()


def _installed(top: str, folders: tuple[Path, ...]) -> importlib.machinery.ModuleSpec | None:
    """The package or module of this name that Python finds outside of the user's folders."""
    mine = {*folders, *_added}
    others = [entry for entry in sys.path if Path(entry or ".").resolve() not in mine]
    found = importlib.machinery.PathFinder.find_spec(top, others)
    if found is not None and found.origin is not None:
        return found
    for finder in sys.meta_path:  # packages that are installed in place may have finders of their own
        if finder in _PYTHONS_OWN or not hasattr(finder, "find_spec"):
            continue
        spec = finder.find_spec(top, None)
        origin = None if spec is None else spec.origin
        if spec is not None and origin is not None and not mine & set(Path(origin).resolve().parents[:2]):
            return spec
    return found


def _place(top: str, spec: importlib.machinery.ModuleSpec | None) -> str:
    if top in sys.stdlib_module_names:
        return f"Python's own module {top!r}"
    version = _version(top)
    what = f"the installed package {top!r} {version}" if version else f"the module {top!r} on Python's path"
    return f"{what} ({spec.origin})" if spec is not None and spec.origin else what


def _version(top: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(top)
    for name in importlib.metadata.packages_distributions().get(
        top, ()
    ):  # a package may be distributed under another name
        return importlib.metadata.version(name)
    return None


def _is_same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and Path(one).resolve() == Path(other).resolve()


def _is_older(module: types.ModuleType, source: Source) -> bool:
    """Whether a module that the user imported before is of an earlier state of its file, as far as its bytecode file tells."""
    cached = getattr(module, "__cached__", None)
    if cached is None or sys.dont_write_bytecode:
        return False
    try:
        head, now = Path(cached).read_bytes()[:16], source.file.stat()
    except OSError:
        return False
    if len(head) < 16 or head[4:8] != bytes(4):  # a digest, in the place of time and size
        return False
    written = int(now.st_mtime) & 0xFFFFFFFF, now.st_size & 0xFFFFFFFF
    return (int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:16], "little")) != written


def _import(source: Source) -> types.ModuleType:
    if source.folder is not None and str(source.folder) not in sys.path:
        # At the end, so that no file in this folder hides what is installed.
        sys.path.append(str(source.folder))
        _added.add(source.folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(source.name)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"the module {source.name!r} cannot be imported: {told(error, source)}.") from error


def told(error: BaseException, source: Source) -> str:
    """The kind and the first line of an error of a module's, with the innermost file and line of the user's."""
    reason = on_one_line(Exception((str(error).splitlines() or [""])[0]))
    file, line = _where(error, source)
    return f"{type(error).__name__}: {reason} ({file}, line {line})"


def _where(error: BaseException, source: Source) -> tuple[str, int | None]:
    if isinstance(error, SyntaxError) and error.filename is not None:
        return error.filename, error.lineno
    home = source.file.parent if source.folder is None else source.folder
    frames = list(traceback.extract_tb(error.__traceback__))
    own = [frame for frame in frames if _is_in(frame.filename, home)]
    last = (own or frames)[-1]
    return last.filename, last.lineno


def _is_in(file: str, home: Path) -> bool:
    """Whether a file is in the user's folder, and not of an environment that is there too."""
    path = Path(file).resolve()
    return path.is_relative_to(home) and "site-packages" not in path.relative_to(home).parts
