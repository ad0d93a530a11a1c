"""Write objects of gnflow as JSON plus named arrays and read them back, without pickle.

An object is written as the name of its class and its fields; only classes that gnflow itself defines are read back, so
that a run folder cannot make the reader execute anything.
"""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._errors import RunFolderError

# In the metadata of a field: what its value was in the files of versions that did not have the field.
IN_OLDER_FILES = "in older files"

_CLASS = "__class__"
_ARRAY = "__array__"
_TUPLE = "__tuple__"
_OPAQUE = "__opaque__"


def encode(value: Any, arrays: dict[str, np.ndarray], name: str) -> Any:
    """Make `value` a tree that JSON can hold, moving its arrays into `arrays` under names that begin with `name`.

    Objects that are neither gnflow's nor plain data (a user's Equinox module, a function) become a note of their type;
    `decode` then asks for them.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        arrays[name] = np.asarray(value)
        return {_ARRAY: name}
    if isinstance(value, tuple):
        return {_TUPLE: [encode(item, arrays, f"{name}.{i}") for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [encode(item, arrays, f"{name}.{i}") for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: encode(item, arrays, f"{name}.{key}") for key, item in value.items()}
    cls = type(value)
    if dataclasses.is_dataclass(value) and cls.__module__.split(".")[0] == "gnflow":
        fields = {
            field.name: encode(getattr(value, field.name), arrays, f"{name}.{field.name}")
            for field in dataclasses.fields(value)
        }
        return {_CLASS: f"{cls.__module__}:{cls.__qualname__}", **fields}
    return {_OPAQUE: f"{cls.__module__}:{cls.__qualname__}", "repr": repr(value)[:200]}


def decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Inverse of `encode`.

    **Raises:** `RunFolderError` if `value` names a class outside gnflow or one that this version does not have.
    """
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if _ARRAY in value:
        if value[_ARRAY] not in arrays:
            raise RunFolderError(
                f"the run file refers to an array {value[_ARRAY]!r} that it does not hold; it is damaged."
            )
        return jnp.asarray(arrays[value[_ARRAY]])
    if _TUPLE in value:
        return tuple(decode(item, arrays) for item in value[_TUPLE])
    if _OPAQUE in value:
        raise RunFolderError(
            f"the run used an object of {value[_OPAQUE]}, which gnflow cannot rebuild from a file; pass it to load(...)."
        )
    if _CLASS in value:
        return _rebuild(value, arrays)
    return {key: decode(item, arrays) for key, item in value.items()}


def is_opaque(encoded: Any) -> bool:
    """Whether anything in what `encode` returned is only a note of a type that `decode` cannot rebuild."""
    if isinstance(encoded, list):
        return any(is_opaque(item) for item in encoded)
    return isinstance(encoded, dict) and (_OPAQUE in encoded or any(is_opaque(item) for item in encoded.values()))


def _rebuild(value: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    module_name, _, class_name = value[_CLASS].partition(":")
    if module_name.split(".")[0] != "gnflow":
        raise RunFolderError(
            f"the run file names the class {value[_CLASS]!r}; only gnflow's own classes are read back."
        )
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise RunFolderError(
            f"the run file names the class {value[_CLASS]!r}, which this version of gnflow does not have; "
            "the versions that wrote the run stand in its run.json."
        ) from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__.split(".")[0] == "gnflow"):
        raise RunFolderError(f"the run file names {value[_CLASS]!r}, which is no class of gnflow that holds data.")
    value = {
        field.name: field.metadata[IN_OLDER_FILES]
        for field in dataclasses.fields(cls)
        if IN_OLDER_FILES in field.metadata
    } | value
    missing = [field.name for field in dataclasses.fields(cls) if field.name not in value]
    if missing:
        raise RunFolderError(
            f"the run file gives {value[_CLASS]!r} no {', '.join(missing)}; it is damaged or was written by another "
            "version of gnflow, whose number stands in its run.json."
        )
    # The constructor may draw random numbers or check what was checked already; the fields are the object.
    instance = object.__new__(cls)
    for field in dataclasses.fields(cls):
        object.__setattr__(instance, field.name, decode(value[field.name], arrays))
    return instance
