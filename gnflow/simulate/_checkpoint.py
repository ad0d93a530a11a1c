"""The state of a long run in a folder, from which another process can go on."""

import dataclasses
import hashlib
import io
import json
import os
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._core import RunFolderError, as_path, cannot_write, is_key, read_arrays, read_json, write_whole

# Wall time between two writes: what a process that is killed loses at most.
_SECONDS = 60.0
_IDENTITY_FILE = "run.json"
_HEADER = "header"
# The code of these packages is not compared: it does not change within a version.
_LIBRARIES = ("gnflow", "equinox", "jax", "diffrax", "optax", "lineax", "builtins", "abc", "typing")


class Kept(NamedTuple):
    """The state of a solution: plain data in `header`, and `arrays` by name."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Checkpoints:
    """A folder with the solutions of one run, one file for each. All but the last are complete.

    **Arguments:**

    - `folder`: the folder, which is made if it does not exist.
    - `identity`: a digest of each part of the run (`identity_of`).

    **Raises:** `RunFolderError` if `folder` holds something else or another run. The message names the part that differs.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: dict[str, str]):
        self._folder = as_path(folder, "checkpoint", RunFolderError)
        self._identity = identity
        file = self._folder / _IDENTITY_FILE
        try:
            self._make_folder()
            known = read_json(file.read_bytes(), str(file))
        except OSError as error:
            raise RunFolderError(
                f"checkpoint = {str(folder)!r}: no folder that a run can be kept in ({error}); name one that is not there yet."
            ) from error
        others = [name for name, digest in identity.items() if not isinstance(known, dict) or known.get(name) != digest]
        if others:
            raise RunFolderError(
                f"checkpoint = {str(folder)!r} holds another run, with another {', another '.join(others)}; name another "
                "folder, or remove this one."
            )

    def solution(self, number: int) -> "Checkpoint":
        """The checkpoint of a solution. The first solution of a run has the number 1."""
        return Checkpoint(self._folder / f"solution_{number}.npz", self._make_folder)

    def _make_folder(self) -> None:
        """Make the folder, if it is not there or empty. **Raises:** `OSError`."""
        if not self._folder.exists() or not any(self._folder.iterdir()):
            self._folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self._identity, indent=1) + "\n"
            (self._folder / _IDENTITY_FILE).write_text(text, encoding="utf-8")


class Checkpoint:
    """The file of one solution. It is written whole or not at all, so a reader never sees half of it.

    **Arguments:**

    - `file`: the file.
    - `make_folder`: makes its folder again if it is gone. Another process that has finished the same run may have removed it,
      and this run would be lost for want of a checkpoint that nobody needs.
    """

    def __init__(self, file: Path, make_folder: Callable[[], None]):
        self._file = file
        self._make_folder = make_folder
        self._written = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last write is more than a minute ago."""
        return time.monotonic() - self._written >= _SECONDS

    def read(self) -> Kept | None:
        """The state that was kept, or None if there is none. **Raises:** `RunFolderError` for a damaged file."""
        if not self._file.exists():
            return None
        try:
            arrays = read_arrays(self._file)
            return Kept(read_json(str(arrays.pop(_HEADER)), "its header"), arrays)
        except (OSError, KeyError) as error:
            raise RunFolderError(
                f"{self._file} is damaged ({error}); remove it to begin that solution anew."
            ) from error

    def write(self, kept: Kept) -> None:
        """Replace the state that was kept. **Raises:** `RunFolderError` if it cannot be written."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **{_HEADER: np.asarray(json.dumps(kept.header))}, **kept.arrays)
        try:
            self._make_folder()
            write_whole(self._file, content.getvalue())
        except OSError as error:
            raise cannot_write(self._file, error) from error
        self._written = time.monotonic()


def identity_of(**parts: Any) -> dict[str, str]:
    """A digest of each part of a run, from its numbers, arrays, classes and functions.

    The code of the user's functions and classes counts, too. Of objects that are not dataclasses (Equinox modules are) only the
    name of the class counts.
    """
    return {name: _digest(part) for name, part in parts.items()}


def as_arrays(tree: PyTree, name: str) -> dict[str, np.ndarray]:
    """The leaves of a tree of arrays, on the host, under the names "`name`.0", "`name`.1" and so on."""
    return {f"{name}.{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(jax.device_get(tree)))}


def from_arrays(like: PyTree, arrays: dict[str, np.ndarray], name: str) -> PyTree:
    """The inverse of `as_arrays`, for a tree with the structure, shapes and dtypes of `like`.

    **Raises:** `RunFolderError` if the arrays do not fit.
    """
    leaves, structure = jax.tree.flatten(like)
    found = [arrays.get(f"{name}.{i}", np.zeros(0)) for i in range(len(leaves))]
    for leaf, array in zip(leaves, found, strict=True):
        if array.shape != np.shape(leaf) or array.dtype != np.asarray(leaf).dtype:
            raise RunFolderError("the checkpoint does not fit this version of gnflow; remove its folder to begin anew.")
    # Numbers of a weak type stay so. Otherwise the next segment would be compiled again.
    weak = [np.shape(leaf) == () and getattr(leaf, "weak_type", False) for leaf in leaves]
    given = [array.item() if is_weak else array for array, is_weak in zip(found, weak, strict=True)]
    return jax.tree.unflatten(structure, [jnp.asarray(value) for value in given])


def _digest(part: Any) -> str:
    arrays: list[np.ndarray] = []
    found = hashlib.sha256(json.dumps(_described(part, arrays), sort_keys=True).encode())
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def _described(value: Any, arrays: list[np.ndarray]) -> Any:
    """Plain data that names every class, field and number of `value`. Its arrays are appended to `arrays`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_key(value):
        value = jax.random.key_data(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        arrays.append(np.asarray(value))
        return ["array", len(arrays)]
    if isinstance(value, tuple | list):
        return [_described(item, arrays) for item in value]
    if isinstance(value, dict):
        return {str(key): _described(item, arrays) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        given = {name: _described(getattr(value, name, None), arrays) for name in fields}
        return {"class": _name(type(value)), **_code_of_class(type(value), arrays), **given}
    if isinstance(value, types.FunctionType):
        return {"function": _name(value), **_code(value, arrays)}
    return _name(value if hasattr(value, "__qualname__") else type(value))


def _code_of_class(cls: type, arrays: list[np.ndarray]) -> dict[str, Any]:
    """The code of the methods of a user's class and of its base classes outside of the libraries."""
    own = [kind for kind in cls.__mro__ if kind.__module__.split(".")[0] not in _LIBRARIES]
    methods = {
        f"{kind.__qualname__}.{name}": method
        for kind in own
        for name, method in vars(kind).items()
        if isinstance(method, types.FunctionType) and method.__module__ == kind.__module__
    }
    return {"code": {name: _code(method, arrays) for name, method in sorted(methods.items())}} if methods else {}


def _code(function: types.FunctionType, arrays: list[np.ndarray]) -> dict[str, Any]:
    """The code, the defaults and the closure of a function. Functions that it calls are not followed."""
    return {
        "code": _code_text(function.__code__),
        "defaults": _described(function.__defaults__, arrays),
        "taken along": [_described_number(cell) for cell in function.__closure__ or ()],
    }


def _code_text(code: types.CodeType) -> list[Any]:
    constants = [_code_text(one) if isinstance(one, types.CodeType) else repr(one) for one in code.co_consts]
    return [hashlib.sha256(code.co_code).hexdigest(), list(code.co_names), constants]


def _described_number(cell: Any) -> Any:
    """A number or text of a closure. Of other objects only the type, because they may contain the function itself."""
    try:
        value = cell.cell_contents
    except ValueError:  # not yet set
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else _name(type(value))


def _name(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"
