"""A data set as the bytes of a netCDF-4 file and back, in a few milliseconds.

The HDF5 objects of a netCDF-4 file are written directly, so that xarray, ncdump or any other reader can open it. The general
writers and readers take 20 times as long, which is more than a small cell takes to compute.
"""

import io
import math
from typing import Any

import h5py
import numpy as np
import xarray as xr

from .._core import RunFolderError, require_plain_netcdf

_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable.{:10d}"
_OF_THE_FORMAT = ("CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST", "dtype")
_LARGEST_TEXT_ARRAY = 64  # entries: all of them may refer to the same long text, and take far more memory than the file
_COORDINATES = "coordinates"  # the attribute in which the format names coordinates that are not an index


def to_netcdf(data: xr.Dataset) -> bytes:
    """The bytes of a netCDF-4 file with `data`, whose variables are numbers or booleans, and attributes text or numbers."""
    others = [str(name) for name in data.coords if name not in data.dims]
    with h5py.File("cell.nc", "w", driver="core", backing_store=False) as file:
        file.attrs.update(data.attrs)
        if others:
            file.attrs[_COORDINATES] = " ".join(others)
        for dim, size in data.sizes.items():
            if dim in data.variables:
                _write(file, str(dim), data.variables[dim]).make_scale(str(dim))
            else:
                file.create_dataset(str(dim), data=np.zeros(size, ">f4")).make_scale(_NO_VARIABLE.format(size))
        for name, variable in data.variables.items():
            if name not in data.dims:
                written = _write(file, str(name), variable)
                for axis, dim in enumerate(variable.dims):
                    written.dims[axis].attach_scale(file[str(dim)])
        file.flush()
        return file.id.get_file_image()


def from_netcdf(content: bytes) -> xr.Dataset:
    """The data set that `to_netcdf` wrote.

    **Raises:** `RunFolderError` for a file that refers to others, or claims to hold far more than it has bytes; the errors of
    HDF5 for bytes that are not such a file.
    """
    with h5py.File(io.BytesIO(content), "r") as file:
        require_plain_netcdf(file, len(content))
        attrs = _attributes(file)
        others = str(attrs.pop(_COORDINATES, "")).split()
        variables = {}
        for name, stored in file.items():
            own = _attributes(stored)
            if str(own.get("NAME", "")).startswith(_NO_VARIABLE[:40]):
                continue
            if stored.dtype.kind not in "bif":
                raise RunFolderError(f"its variable {name!r} is of type {stored.dtype}, and gnflow's are numbers")
            # An index is its own dimension. Another variable refers to its dimensions.
            dims = [str(file[part[0]].name).lstrip("/") for part in own.get("DIMENSION_LIST", ())]
            dims = [name] if own.get("CLASS") == "DIMENSION_SCALE" else dims
            values = stored[()].astype(bool) if own.get("dtype") == "bool" else stored[()]
            kept = {key: value for key, value in own.items() if key not in _OF_THE_FORMAT}
            variables[name] = xr.Variable(dims, values, kept)
    return xr.Dataset(variables, attrs=attrs).set_coords(others)


def _attributes(thing: h5py.File | h5py.Dataset) -> dict[str, Any]:
    """Attributes with Python's types. **Raises:** `RunFolderError` for long arrays of text, which could fill the memory."""
    found = {}
    for name in thing.attrs:
        if name == "REFERENCE_LIST":
            continue  # references from a dimension back to its variables
        described = thing.attrs.get_id(name)
        if described.dtype.kind == "O" and math.prod(described.shape) > _LARGEST_TEXT_ARRAY:
            raise RunFolderError(
                f"its attribute {name!r} is an array of {described.shape} texts, which gnflow does not write"
            )
        found[name] = _plain(thing.attrs[name])
    return found


def _write(file: h5py.File, name: str, variable: xr.Variable) -> h5py.Dataset:
    values = variable.to_numpy()
    if values.dtype.kind not in "bif":
        raise TypeError(f"{name!r} is of type {values.dtype}; a cell's file holds numbers and booleans.")
    written = file.create_dataset(name, data=values.astype(np.int8) if values.dtype.kind == "b" else values)
    written.attrs.update({str(key): value for key, value in variable.attrs.items()})
    if values.dtype.kind == "b":
        written.attrs["dtype"] = "bool"  # xarray marks booleans in this way
    return written


def _plain(value: Any) -> Any:
    """An attribute as a Python number or text."""
    if isinstance(value, bytes | np.bytes_):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
