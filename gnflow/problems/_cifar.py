"""Records of labelled images in CIFAR-10's binary format."""

from pathlib import Path

import numpy as np

from .._core import DataError

NUM_PIXELS = 3 * 32 * 32
_RECORD = 1 + NUM_PIXELS


def read_cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3072) and labels (n,), uint8, of a file of CIFAR-10's binary version.

    The format: for each image one byte, its label, and 3072 bytes, the red, then the green, then the blue 32 x 32 pixels,
    each row by row. It has no header; a file of any number of whole records is read.

    **Raises:** `DataError` that names the file for one that cannot be read, is empty, or holds no whole number of records.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    if content.size == 0 or content.size % _RECORD:
        raise DataError(
            f"{path} has {content.size} bytes, which is no whole number of records of {_RECORD} bytes (a label and "
            "3 x 32 x 32 pixels): it is truncated, or no file of CIFAR-10's binary version."
        )
    records = content.reshape(-1, _RECORD)
    return records[:, 1:], records[:, 0]
