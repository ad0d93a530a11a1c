"""Arrays of bytes in the IDX format, plain or compressed by gzip."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from .._core import DataError

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTES = 8


def read_idx(path: Path, num_axes: int) -> np.ndarray:
    """The array of unsigned bytes in an IDX file.

    The format: two zero bytes, the code of the type (8: unsigned bytes), the number of axes, the size of each axis (four
    bytes, the most significant first), and then the entries, the last axis fastest. A file that begins as gzip does is
    decompressed, whatever it is called.

    **Arguments:** `path`: the file; `num_axes`: how many axes the array must have.

    **Returns:** a read-only uint8 array with that many axes.

    **Raises:** `DataError` that names the file for one that cannot be read or decompressed, of another type or number of
    axes, and one that is shorter or longer than its sizes say.
    """
    content = _content(path)
    expected = bytes((0, 0, _UNSIGNED_BYTES, num_axes))
    if content[:4] != expected:
        raise DataError(
            f"{path} begins with the bytes {content[:4].hex(' ') or '(none)'}, but {expected.hex(' ')} is expected: the "
            f"magic number of an IDX file of unsigned bytes with {num_axes} {'axis' if num_axes == 1 else 'axes'}."
        )
    header = 4 + 4 * num_axes
    if len(content) < header:
        raise DataError(f"{path} is truncated: it has {len(content)} bytes, and the header alone has {header}.")
    sizes = tuple(np.frombuffer(content, ">u4", count=num_axes, offset=4).tolist())
    entries, needed = len(content) - header, math.prod(sizes)
    if entries != needed:
        state = "is truncated" if entries < needed else "is damaged"
        raise DataError(
            f"{path} {state}: its header says {' x '.join(map(str, sizes))} = {needed} entries, but {entries} follow it."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(f"{path} cannot be read ({error}).") from error
