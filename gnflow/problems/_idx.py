"""Read arrays of bytes, or some of their rows, in the IDX format, plain or compressed by gzip."""

import gzip
import math
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from .._core import DataError

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTES = 8
_PIECE = 2**20  # bytes decompressed at once


class IdxFile:
    """An IDX file of unsigned bytes. Its header is read and checked at once, its entries when they are asked for.

    The format has two zero bytes, the code of the type (8: unsigned bytes), the number of axes, the size of each axis (four
    bytes, the most significant first), and then the entries, the last axis fastest. A file that begins like gzip is
    decompressed, whatever its name.

    **Arguments:**

    - `path`: the file.
    - `num_axes`: how many axes the array must have.

    **Attributes:**

    - `path`: the file.
    - `shape`: the shape of the array.

    **Raises:** `DataError` for a file that cannot be read or decompressed, or has another type or number of axes, and for a
    plain file that is shorter or longer than its header says. (The length of a compressed file is not known before it is
    decompressed; `whole` and `rows` check it.)
    """

    def __init__(self, path: Path, num_axes: int):
        self.path = path
        self._header = 4 + 4 * num_axes
        try:
            with path.open("rb") as file:
                self._compressed = file.read(2) == _GZIP
            with self._open() as file:
                content = file.read(self._header)
        except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
            raise self._unreadable(error) from error
        expected = bytes((0, 0, _UNSIGNED_BYTES, num_axes))
        if content[:4] != expected:
            raise DataError(
                f"{path} begins with the bytes {content[:4].hex(' ') or '(none)'}, but {expected.hex(' ')} is expected: the "
                f"magic number of an IDX file of unsigned bytes with {num_axes} {'axis' if num_axes == 1 else 'axes'}."
            )
        if len(content) < self._header:
            raise DataError(
                f"{path} is truncated: it has {len(content)} bytes, and the header alone has {self._header}."
            )
        self.shape: tuple[int, ...] = tuple(np.frombuffer(content, ">u4", count=num_axes, offset=4).tolist())
        if not self._compressed:
            self._require_entries(path.stat().st_size - self._header)

    def whole(self) -> np.ndarray:
        """All entries, a read-only uint8 array of the file's shape.

        **Raises:** `DataError` for a file that cannot be read or decompressed, or is shorter or longer than its header says.
        """
        try:
            with self._open() as file:
                content = file.read()
        except (OSError, EOFError, zlib.error) as error:
            raise self._unreadable(error) from error
        self._require_entries(len(content) - self._header)
        return np.frombuffer(content, np.uint8, offset=self._header).reshape(self.shape)

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The rows (entries of the first axis) with these numbers, uint8, in that order.

        Only these rows of a plain file are read. A compressed file is decompressed in pieces, up to the last of these rows.

        **Raises:** `DataError` for a file that cannot be read or decompressed that far; if that includes its last row, also
        for one that is shorter or longer than its header says.
        """
        size = math.prod(self.shape[1:])
        chosen = np.empty((len(numbers), size), np.uint8)
        try:
            if self._compressed:
                self._decompress(numbers, size, chosen)
            elif chosen.size:
                entries = np.memmap(self.path, np.uint8, "r", offset=self._header).reshape(-1, size)
                np.take(entries, numbers, axis=0, out=chosen)
        except (OSError, EOFError, zlib.error) as error:
            raise self._unreadable(error) from error
        return chosen.reshape(len(numbers), *self.shape[1:])

    def _decompress(self, numbers: np.ndarray, size: int, chosen: np.ndarray) -> None:
        """Fill `chosen` (rows, size) in the order of the file, which is read once and held one piece at a time."""
        order = np.argsort(numbers, kind="stable")
        wanted = numbers[order]
        last = int(wanted[-1]) + 1 if wanted.size else 0
        count = max(1, _PIECE // max(size, 1))
        with self._open() as file:
            file.seek(self._header)
            for start in range(0, last, count):
                stop = min(start + count, last)
                piece = file.read((stop - start) * size)
                if len(piece) < (stop - start) * size:
                    self._require_entries(start * size + len(piece))
                here = slice(*np.searchsorted(wanted, (start, stop)))
                chosen[order[here]] = np.frombuffer(piece, np.uint8).reshape(-1, size)[wanted[here] - start]
            if last == self.shape[0]:
                # Read to the end of the stream, where gzip has its checksum.
                self._require_entries(last * size + len(file.read()))

    def _open(self) -> BufferedIOBase:
        return gzip.open(self.path, "rb") if self._compressed else self.path.open("rb")

    def _require_entries(self, entries: int) -> None:
        needed = math.prod(self.shape)
        if entries != needed:
            state = "is truncated" if entries < needed else "is damaged"
            raise DataError(
                f"{self.path} {state}: its header says {' x '.join(map(str, self.shape))} = {needed} entries, but {entries} "
                "follow it."
            )

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"{self.path} cannot be read ({error}).")
