"""Write objects of gnflow as JSON plus named arrays and read them back, without pickle.

An object is written as the name of its class and its fields. The reader makes objects of the classes on its own list only,
from values of the types that their fields are annotated with: nothing that a file names is imported or called.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import AbstractArray, PyTree

from ._arrays import is_key
from ._checks import recheck
from ._errors import GnflowError, RunFolderError
from ._text import written

CLASS = "__class__"
ARRAY = "__array__"
TUPLE = "__tuple__"
OPAQUE = "__opaque__"
TEXT = "repr"
FIELDS = "fields"


def is_own_class(cls: type) -> bool:
    """Whether a class is part of gnflow, so that its promises are tested and files can name it."""
    return cls.__module__.split(".")[0] == "gnflow"


def class_name(cls: type) -> str:
    """The name of a class in files."""
    return f"{cls.__module__}:{cls.__qualname__}"


def known_classes(base: type) -> dict[str, type]:
    """gnflow's loaded dataclasses that are `base` or inherit from it, by `class_name`."""
    found: dict[str, type] = {}
    pending = [base]
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if is_own_class(cls) and dataclasses.is_dataclass(cls):
            found[class_name(cls)] = cls
    return found


def encode(value: Any, arrays: dict[str, np.ndarray], name: str, with_fields: bool = False) -> Any:
    """Make `value` a tree that JSON can hold, moving its arrays into `arrays` under names that begin with `name`.

    An object that is neither gnflow's nor plain data (a user's Equinox module, a function) becomes a note of its class;
    `decode` then asks the user for it. `with_fields` adds its fields to the note, for `first_difference`.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array) and not is_key(value):
        arrays[name] = np.asarray(value)
        return {ARRAY: name}
    if isinstance(value, tuple):
        return {TUPLE: [encode(item, arrays, f"{name}.{i}", with_fields) for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [encode(item, arrays, f"{name}.{i}", with_fields) for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: encode(item, arrays, f"{name}.{key}", with_fields) for key, item in value.items()}
    cls = type(value)
    if dataclasses.is_dataclass(value) and is_own_class(cls):
        fields = {
            field.name: encode(getattr(value, field.name), arrays, f"{name}.{field.name}", with_fields)
            for field in dataclasses.fields(value)
        }
        return {CLASS: class_name(cls), **fields}
    note: dict[str, Any] = {OPAQUE: class_name(cls), TEXT: written(value)[:200]}
    if with_fields and dataclasses.is_dataclass(value) and not isinstance(value, type):
        note[FIELDS] = {
            field.name: encode(getattr(value, field.name, None), arrays, f"{name}.{field.name}", True)
            for field in dataclasses.fields(value)
        }
    return note


def decode(
    value: Any,
    arrays: Mapping[str, np.ndarray],
    classes: Mapping[str, type],
    written_with: str,
    is_partial: bool = False,
) -> Any:
    """Inverse of `encode`.

    **Arguments:**

    - `value`: what `encode` returned.
    - `arrays`: the arrays that `encode` moved out of it, by name.
    - `classes`: the classes that may be made, by name (`known_classes`).
    - `written_with`: the version of gnflow that wrote the file, for messages.
    - `is_partial`: whether `value` is a tree like an object, such as its trained weights, in which None stands for what
      is left out.

    **Raises:** `RunFolderError` for another class, a field that the class does not have, a missing field without a default,
    and a value that its field cannot have.
    """
    if isinstance(value, list):
        return [decode(item, arrays, classes, written_with, is_partial) for item in value]
    if not isinstance(value, dict):
        return value
    if ARRAY in value:
        array = arrays.get(value[ARRAY]) if isinstance(value[ARRAY], str) else None
        if array is None:
            raise RunFolderError(
                f"the run file refers to an array {value[ARRAY]!r} that it does not hold; it is damaged."
            )
        return jnp.asarray(array)
    if TUPLE in value:
        return tuple(decode(item, arrays, classes, written_with, is_partial) for item in value[TUPLE])
    if OPAQUE in value:
        raise RunFolderError(
            f"the run used an object of {value[OPAQUE]}, which gnflow cannot rebuild from a file; pass it to load(...)."
        )
    if CLASS in value:
        fields = {key: item for key, item in value.items() if key != CLASS}
        return _rebuild(value[CLASS], fields, arrays, classes, written_with, is_partial)
    return {key: decode(item, arrays, classes, written_with, is_partial) for key, item in value.items()}


def is_opaque(encoded: Any) -> bool:
    """Whether `encode` left a note of an object that `decode` cannot rebuild."""
    return bool(opaque_classes(encoded))


def opaque_classes(encoded: Any) -> list[str]:
    """The names of the classes of whose objects `encode` left only a note."""
    return [str(note[OPAQUE]) for note in _notes(encoded)]


def opaque_names(encoded: Any) -> list[str]:
    """The same for messages, with functions by their names."""
    texts = [str(note.get(TEXT, "")).partition(" at 0x")[0].strip("<>") for note in _notes(encoded)]
    return [
        text if text.startswith("function ") else name
        for text, name in zip(texts, opaque_classes(encoded), strict=True)
    ]


def _notes(encoded: Any) -> list[dict[str, Any]]:
    if isinstance(encoded, list):
        return [note for item in encoded for note in _notes(item)]
    if not isinstance(encoded, dict):
        return []
    return [encoded] if OPAQUE in encoded else [note for item in encoded.values() for note in _notes(item)]


def legible(encoded: Any, classes: Iterable[str]) -> Any:
    """`encoded` with text in the place of objects that cannot be rebuilt (a user's metric, a class not in `classes`)."""
    if isinstance(encoded, list):
        return [legible(item, classes) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if OPAQUE in encoded:
        return str(encoded.get(TEXT, encoded[OPAQUE]))
    if CLASS in encoded and (encoded[CLASS] not in classes or is_opaque(encoded)):
        return short_name(encoded[CLASS]) + "".join(f"({name})" for name in opaque_classes(encoded))
    return {key: legible(item, classes) for key, item in encoded.items()}


def first_difference(
    encoded: Any, other: Any, arrays: Mapping[str, Any], others: Mapping[str, Any], at: str
) -> str | None:
    """The path, from `at`, of the first difference between two trees of `encode`; None if they are equal.

    Notes of objects that cannot be rebuilt are equal if their classes have the same name, in whatever module.
    """
    if isinstance(encoded, dict) and isinstance(other, dict):
        if ARRAY in encoded and ARRAY in other:
            left, right = arrays.get(encoded[ARRAY]), others.get(other[ARRAY])
            same = left is not None and right is not None and left.dtype == right.dtype and np.array_equal(left, right)
            return None if same else at
        if OPAQUE in encoded and OPAQUE in other:
            if short_name(encoded[OPAQUE]) != short_name(other[OPAQUE]):
                return at
            known = encoded.get(FIELDS), other.get(FIELDS)  # not in folders of version 0.1.0
            return None if None in known else first_difference(*known, arrays, others, at)
        if encoded.get(CLASS) != other.get(CLASS) or encoded.keys() - other.keys():
            return at
        # Folders of earlier versions lack fields that their class has got since. They change no run where they hold no number.
        if any(CLASS not in encoded or not _is_text_alone(other[key]) for key in other.keys() - encoded.keys()):
            return at
        pairs = [(encoded[key], other[key], at if key == TUPLE else f"{at}.{key}") for key in encoded]
    elif isinstance(encoded, list) and isinstance(other, list) and len(encoded) == len(other):
        pairs = [(item, its, f"{at}[{i}]") for i, (item, its) in enumerate(zip(encoded, other, strict=True))]
    else:
        # In Python 1 == True == 1.0, but they are different settings.
        return None if encoded == other and type(encoded) is type(other) else at
    return next((found for pair in pairs if (found := first_difference(*pair[:2], arrays, others, pair[2]))), None)


def _is_text_alone(encoded: Any) -> bool:
    """Whether an encoded value is None or text, such as the names of columns, or an object that holds nothing else."""
    if isinstance(encoded, dict) and (CLASS in encoded or TUPLE in encoded):
        return all(_is_text_alone(item) for item in encoded.values())
    if isinstance(encoded, list):
        return all(map(_is_text_alone, encoded))
    return encoded is None or isinstance(encoded, str)


def short_name(name: Any) -> str:
    """The last part of a `class_name`. It stays the same where a class moves from a script to a module."""
    return str(name).rpartition(":")[2].rpartition(".")[2]


def _short(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, jax.Array) else written(value)[:80]


def _rebuild(
    name: Any,
    stored: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
    classes: Mapping[str, type],
    written_with: str,
    is_partial: bool,
) -> Any:
    cls = classes.get(name) if isinstance(name, str) else None
    if cls is None:
        raise RunFolderError(
            f"the run file names the class {name!r}, which is none that this version of gnflow reads back; it was written with "
            f"gnflow {written_with}. Only gnflow's own flows, models, losses, metrics and the like are made from files."
        )
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = [key for key in stored if key not in fields]
    if unknown:
        raise RunFolderError(
            f"the run file gives {short_name(name)} a field {unknown[0]!r}, which this version of gnflow does not have; it was "
            f"written with gnflow {written_with}: load it with that version or a later one."
        )
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, field in fields.items():
        if key in stored:
            below = is_partial or hints.get(key) is PyTree
            values[key] = decode(stored[key], arrays, classes, written_with, below)
        elif field.default is not dataclasses.MISSING:
            values[key] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[key] = field.default_factory()
        else:
            raise RunFolderError(
                f"the run file gives {short_name(name)} no {key}; it is damaged, or was written with another gnflow: "
                f"{written_with}."
            )
    # The constructor may draw random numbers, so the fields are set instead; `recheck` makes its checks.
    instance = object.__new__(cls)
    for key, value in values.items():
        if not (is_partial and value is None) and not _fits(value, hints.get(key, Any)):
            raise RunFolderError(
                f"the run file is damaged: {short_name(name)}.{key} = {_short(value)}; expected {hints[key]}."
            )
        object.__setattr__(instance, key, value)
    try:
        recheck(instance)
    except GnflowError as error:
        raise RunFolderError(f"the run file is damaged: {short_name(name)}: {error}") from error
    return instance


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a field with this annotation may hold `value`. True for kinds of annotations that are not known here."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True
    if annotation is None or annotation is types.NoneType:
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if annotation is float:
        # A number that a compiled program takes as an argument is stored as an array.
        return (isinstance(value, int | float) and not isinstance(value, bool)) or _is_scalar(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return isinstance(value, annotation)
    if isinstance(annotation, type) and annotation is not object:
        return isinstance(value, annotation)
    return True


def _is_scalar(value: Any) -> bool:
    return isinstance(value, jax.Array) and value.shape == ()
