"""Attributes of a data set that netCDF has no type for, kept as JSON text."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import RunFolderError, read_json

if TYPE_CHECKING:
    import xarray

_LIST = "gnflow_json_attributes"  # the attribute that names those kept as JSON


def storable(data: "xarray.Dataset") -> "xarray.Dataset":
    """`data` with attributes that netCDF can hold: numbers and text as they are, None, booleans, lists, dictionaries, paths
    and the like as JSON text.

    `restored` makes them what they were; but tuples become lists, and what JSON does not know becomes its text.
    """
    data = data.copy()
    kept: list[list[str]] = []
    for variable, attrs in _attributes(data):
        for name, value in list(attrs.items()):
            if not isinstance(name, str) or not _is_plain(value):
                del attrs[name]
                attrs[str(name)] = json.dumps(value, default=_as_json)
                kept.append([variable, str(name)])
    if kept:
        data.attrs[_LIST] = json.dumps(kept)
    return data


def restored(data: "xarray.Dataset") -> "xarray.Dataset":
    """The inverse of `storable`. **Raises:** `RunFolderError` where what was kept is damaged."""
    kept = data.attrs.pop(_LIST, None)
    if kept is None:
        return data
    attributes = dict(_attributes(data))
    try:
        for variable, name in read_json(kept, "the list of attributes"):
            attributes[variable][name] = read_json(attributes[variable][name], f"the attribute {name!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"its attributes are damaged ({type(error).__name__}: {error}).") from error
    return data


def _attributes(data: "xarray.Dataset") -> Iterator[tuple[str, dict[Any, Any]]]:
    """The attributes of the data set, called "", and of its variables."""
    yield "", data.attrs
    for name in data.variables:
        yield str(name), data[name].attrs


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value  # at which HDF5's text ends
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iuf" and value.size > 0
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool) and _fits(value)


def _fits(value: Any) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _as_json(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
