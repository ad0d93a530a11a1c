"""Store attributes of a data set for which netCDF has no type as JSON text."""

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import RunFolderError, read_json, shown

if TYPE_CHECKING:
    import xarray

_LIST = "gnflow_json_attributes"  # the attribute that lists those kept as JSON
_PREFIX = "gnflow_json_"
_OF_FORMAT = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "dtype", "coordinates", "grid_mapping", "calendar")
_OF_VALUES = (
    "scale_factor",
    "add_offset",
    "missing_value",
    "valid_range",
    "valid_min",
    "valid_max",
    "_Unsigned",
    "_FillValue",
)
_RESERVED = (*_OF_FORMAT, *_OF_VALUES)


def storable(data: "xarray.Dataset") -> "xarray.Dataset":
    """`data` with attributes that netCDF can hold.

    Numbers and text stay as they are. None, booleans, lists, dictionaries, paths and the like become JSON text under another
    name. The encoding is dropped, so that values are stored as they are. `restored` is the inverse, except that tuples become
    lists, and objects that JSON does not know become text.
    """
    data = data.copy().drop_encoding()
    kept: list[list[str]] = []
    for variable, attrs in _attributes(data):
        for name, value in list(attrs.items()):
            if not _is_name(name) or not _is_plain(value):
                del attrs[name]
                stored = f"{_PREFIX}{len(kept)}"
                attrs[stored] = _json(value)
                kept.append([variable, stored, str(name)])
    if kept:
        data.attrs[_LIST] = json.dumps(kept)
    return data


def restored(data: "xarray.Dataset") -> "xarray.Dataset":
    """The inverse of `storable`. **Raises:** `RunFolderError` if the stored attributes are damaged."""
    kept = data.attrs.pop(_LIST, None)
    if kept is None:
        return data
    attributes = dict(_attributes(data))
    try:
        for variable, stored, name in read_json(kept, "the list of attributes"):
            attributes[variable][name] = read_json(attributes[variable].pop(stored), f"the attribute {name!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"its attributes are damaged ({type(error).__name__}: {error}).") from error
    return data


def _attributes(data: "xarray.Dataset") -> Iterator[tuple[str, dict[Any, Any]]]:
    """The attributes of the data set (under the name "") and of its variables."""
    yield "", data.attrs
    for name in data.variables:
        yield str(name), data[name].attrs


def _is_name(name: Any) -> bool:
    """Whether netCDF can hold an attribute of this name. Names with a meaning of their own in netCDF or xarray are excluded."""
    return isinstance(name, str) and name.isidentifier() and name not in _RESERVED and not name.startswith("gnflow_")


def _is_plain(value: Any) -> bool:
    if type(value) is str:
        # Text in HDF5 is UTF-8 and ends at NUL.
        return "\0" not in value and value.encode(errors="replace").decode() == value
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iuf" and value.size > 0
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=_as_json)
    except (TypeError, ValueError, RecursionError):  # keys that are not text, or values that contain themselves
        return json.dumps(shown(value))


def _as_json(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, os.PathLike) else shown(value)
