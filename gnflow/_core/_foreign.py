"""Read files that anybody may have written.

Nothing in them is executed, and no file makes its reader take more memory than the files that gnflow writes.
"""

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._errors import RunFolderError

if TYPE_CHECKING:
    import h5py

_LARGEST_JSON = 2**26  # bytes; the record of a run has some thousands
_SMALL = 2**20  # bytes that every file may take
_LARGEST_TEXTS = 2**30  # bytes
_OF_DIMENSIONS = ("DIMENSION_LIST", "REFERENCE_LIST")  # attributes of netCDF-4 that hold references
_LARGEST_EXPANSION = 16  # data over the size of a netCDF file; losses compress less


def read_json(content: bytes | str, what: str) -> Any:
    """The content of a JSON text. **Raises:** `RunFolderError` if it is not JSON, above 64 MiB or nested too deep."""
    if len(content) > _LARGEST_JSON:
        raise RunFolderError(f"{what} is damaged: {len(content)} bytes are too many for what gnflow keeps in one.")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise RunFolderError(f"{what} is damaged: it is nested too deep.") from error
    except ValueError as error:
        raise RunFolderError(f"{what} is damaged: it is not JSON ({error}).") from error


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file that gnflow wrote: numbers, booleans or text.

    gnflow does not compress them, and compressed ones are refused: they could take far more memory than the file.

    **Raises:** `RunFolderError` for another or a damaged file; `OSError`.
    """
    try:
        # Opened here because zipfile and NumPy do not close a file that turns out to be no archive.
        with file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            arrays = {}
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise RunFolderError(
                        f"{file} is damaged: {entry.filename!r} is compressed, which gnflow's are not."
                    )
                with archive.open(entry) as stored:
                    arrays[entry.filename.removesuffix(".npy")] = _read_array(stored, entry.file_size)
            return arrays
    except (OSError, MemoryError):
        raise  # says nothing about the content, or is a RunFolderError already
    except Exception as error:  # NumPy and zipfile raise many classes for a damaged file
        raise RunFolderError(f"{file} is damaged: {type(error).__name__}: {error}.") from error


def _read_array(stored: Any, size: int) -> np.ndarray:
    """One array of NumPy's format. **Raises:** `ValueError` unless its header fits its `size` in bytes."""
    # np.load would allocate what the header states before it reads, so the header is compared with the size first.
    version = np.lib.format.read_magic(stored)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"format {version} of an array")
    shape, fortran, dtype = read(stored)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read")
    if math.prod(shape) * dtype.itemsize != size - stored.tell():
        raise ValueError(f"its header states {shape} of {dtype}, and it has {size - stored.tell()} bytes")
    # Arrays in a bytearray can be written to; in bytes they could not.
    values = np.frombuffer(bytearray(stored.read()), dtype=dtype)
    return values.reshape(shape, order="F" if fortran else "C")


def require_plain_netcdf(file: "h5py.File", size: int) -> None:
    """Check that a netCDF-4 file holds its data itself.

    So no other file is read, and no more memory is taken than its `size` in bytes suggests.

    **Raises:** `RunFolderError`.
    """
    total = 0
    _require_short_texts(file, "", size)
    for name, dataset in _datasets(file):
        _require_short_texts(dataset, name, size)
        if dataset.external or dataset.is_virtual:
            raise RunFolderError(f"its variable {name!r} refers to other files, which are not read.")
        # netCDF-4 stores a dimension without coordinates as a data set without content, which is not read.
        is_read = dataset.id.get_storage_size() > 0 or not _is_bare_dimension(dataset)
        total += dataset.size * dataset.dtype.itemsize if is_read else 0
    if total > _LARGEST_EXPANSION * size + _SMALL:
        raise RunFolderError(f"it has {size} bytes and says that it holds {total}, which gnflow's files do not.")


def _require_short_texts(thing: Any, name: str, size: int) -> None:
    """Check texts of variable length: many entries may refer to one long text. **Raises:** `RunFolderError`."""
    counts = {
        f"attribute {key!r}": math.prod(thing.attrs.get_id(key).shape or ())
        for key in thing.attrs
        if key not in _OF_DIMENSIONS and thing.attrs.get_id(key).dtype.kind == "O"
    }
    if name and thing.dtype.kind == "O":
        counts[f"variable {name!r}"] = thing.size
    for what, count in counts.items():
        if count > 1 and count * size > _LARGEST_TEXTS:
            raise RunFolderError(f"its {what} has {count} texts, which may take more memory than gnflow's files do.")


def _is_bare_dimension(dataset: "h5py.Dataset") -> bool:
    name = dataset.attrs.get("NAME", b"")
    return bytes(name if isinstance(name, bytes) else str(name).encode()).startswith(
        b"This is a netCDF dimension but not"
    )


def _datasets(group: "h5py.Group") -> Iterator[tuple[str, "h5py.Dataset"]]:
    import h5py

    for name in map(str, group):
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise RunFolderError(f"its variable {name!r} is a link to something else, which is not followed.")
        found = group[name]
        if not isinstance(found, h5py.Dataset):
            raise RunFolderError(f"it holds {name!r}, which is no variable.")
        yield name, found
