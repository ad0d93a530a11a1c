"""CIFAR-10, from files that the user has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._core import DataError, as_path
from ._labelled_images import LabelledImages, image_problem, require_folder, require_labels
from ._pixels import StandardisePixels
from ._problem import Problem
from ._task import Task

_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = ("test_batch.bin",)
_FOLDER = "cifar-10-batches-bin"
_RECORD = 1 + 3 * 32 * 32  # bytes: a label and the pixels


def cifar10(
    path: str | Path,
    n_train: int = 1024,
    n_test: int = 1000,
    *,
    key: Any,
    n_validation: int = 0,
    task: Task = "classification",
    standardise: StandardisePixels = False,
    shuffle: bool = True,
) -> Problem:
    """CIFAR-10's small photographs (32 x 32 pixels, three colours) from the files of the data set; C = 10, d = 3072.

    The files are not part of gnflow and never downloaded. The function reads those of the binary version in the folder `path`,
    or in `cifar-10-batches-bin` inside it: `data_batch_1.bin` to `data_batch_5.bin` (50000 images in all) and, for test
    data, `test_batch.bin` (10000).

    Inputs are the red, then the green, then the blue pixels, each row by row. They are divided by 255, so that they lie in
    [0, 1], unless they are standardised. Targets are one-hot rows of all ten classes. Training samples are drawn from the
    training files and test samples from the test file, each by its own stream of `key`. So a smaller set is the beginning of a
    larger one, and neither set depends on the size of the other or on `task`.

    The tangent kernel's Gram matrix is (10 N, 10 N), 839 MB for 1024 samples: take fewer for flows and metrics that form it.

    **Arguments:**

    - `path`: the folder.
    - `n_train`: the number of training samples, at least 1.
    - `n_test`: the number of test samples, at least 0 (0: no test data, and no test file is read).
    - `key`: a JAX key.
    - `n_validation`: the number of validation samples, at least 0, drawn from what is left of the training files.
    - `task`: "classification" for the softmax cross-entropy, "regression" for the squared loss of the one-hot targets.
    - `standardise`: True gives every pixel mean 0 and standard deviation 1 over the training samples, as in `gnflow.Problem`;
      "channels" does so for all pixels of a colour together, as is usual for images. Test data are transformed alike.
    - `shuffle`: whether to draw the samples by `key`. False takes the first ones of the files in their order, and as
      validation images the last ones of the training files.

    **Raises:** `DataError` for a missing folder or file, a file that does not hold a whole number of images, labels other than
    0 to 9, and more samples than the files hold; `ConfigError` for an unknown task; `PrecisionError` without float64.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", technical report, University of Toronto
    2009.
    """

    def read(with_test: bool) -> tuple[LabelledImages, LabelledImages | None]:
        files = cifar10_files(path, int(with_test))
        rest = files[len(_TRAIN) :]
        return _read(files[: len(_TRAIN)]), _read(rest) if rest else None

    return image_problem("cifar10", read, 3, n_train, n_test, n_validation, task, standardise, shuffle, key)


def cifar10_files(path: str | Path, n_test: int | None = None, **_: Any) -> tuple[Path, ...]:
    """The files that `cifar10` reads: five of training data and, unless `n_test` is 0, one of test data.

    **Raises:** `DataError` for a missing folder or file.
    """
    folder = as_path(path, "path", DataError)
    require_folder(folder)
    wanted = _TRAIN if n_test == 0 else (*_TRAIN, *_TEST)
    if not any((folder / name).is_file() for name in wanted) and (folder / _FOLDER).is_dir():
        folder = folder / _FOLDER
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"the folder {folder} lacks {', '.join(missing)}. Put the files of CIFAR-10's binary version there (or in a "
            f"folder {_FOLDER} within it), which Alex Krizhevsky, University of Toronto, publishes. gnflow downloads nothing."
        )
    return tuple(folder / name for name in wanted)


def _read(files: Sequence[Path]) -> LabelledImages:
    pixels, labels = [], []
    for file in files:
        images, classes = _read_records(file)
        require_labels(classes, file)
        pixels.append(images)
        labels.append(classes)
    source = files[0].name if len(files) == 1 else f"{files[0].name} to {files[-1].name}"
    return LabelledImages(np.concatenate(pixels).__getitem__, np.concatenate(labels), f"{source} in {files[0].parent}")


def _read_records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3072) and labels (n,), uint8, of a file of CIFAR-10's binary version.

    The format has a record for each image and no header. A record is one byte, the label, and 3072 bytes: the red, then the
    green, then the blue 32 x 32 pixels, each row by row.

    **Raises:** `DataError` for a file that cannot be read, is empty, or does not hold a whole number of records.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    if content.size == 0 or content.size % _RECORD:
        raise DataError(
            f"{path} has {content.size} bytes, which is not a whole number of records of {_RECORD} bytes (a label and "
            "3 x 32 x 32 pixels): it is truncated, or not a file of CIFAR-10's binary version."
        )
    records = content.reshape(-1, _RECORD)
    return records[:, 1:], records[:, 0]
