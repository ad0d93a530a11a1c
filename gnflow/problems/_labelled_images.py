"""Make a problem of images of ten classes in separate training and test files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._core import DataError, require_bool, require_float64, require_integer, stream
from ._pixels import StandardisePixels, require_standardise_pixels, standardisation_of_pixels
from ._problem import Problem
from ._split import draw
from ._task import Task, loss_of_task

NUM_CLASSES = 10
LARGEST_PIXEL = 255.0


class LabelledImages(NamedTuple):
    """Images in files.

    **Attributes:**

    - `pixels`: a function from row numbers (m,) to the pixels (m, d), uint8, of these images.
    - `labels`: the labels (n,), uint8.
    - `source`: where the images are from, for messages.
    """

    pixels: Callable[[np.ndarray], np.ndarray]
    labels: np.ndarray
    source: str


def require_folder(folder: Path) -> None:
    """Check that the folder exists. **Raises:** `DataError`."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r} (looked in {Path.cwd()}).")


def require_labels(labels: np.ndarray, path: Path) -> None:
    """Check that the labels (n,) in a file are 0 to 9. **Raises:** `DataError` that names the first other label."""
    wrong = np.flatnonzero(labels >= NUM_CLASSES)
    if wrong.size:
        raise DataError(
            f"label {int(wrong[0])} in {path} is {int(labels[wrong[0]])}, but labels 0 to {NUM_CLASSES - 1} are expected "
            f"({wrong.size} of {labels.size} are not)."
        )


def image_problem(
    name: str,
    read: Callable[[bool], tuple[LabelledImages, LabelledImages | None]],
    channels: int,
    n_train: int,
    n_test: int,
    n_validation: int,
    task: Task,
    standardise: StandardisePixels,
    shuffle: bool,
    key: Any,
) -> Problem:
    """A problem of `n_train` training and `n_test` test images, each set drawn by its own stream of `key`.

    Validation images are drawn from the training images, from the other end of their shuffled rows. Without `shuffle` the rows
    are those of the files in their order. Pixels are divided by 255. Only the images that are drawn are read and become
    float64. Targets are one-hot rows (n, 10).

    **Arguments:**

    - `name`: the problem's name.
    - `read`: a function that reads the training images and, if it is given True, the test images.
    - `channels`: the number of colours, whose pixels follow one another in an image.
    - `n_train`, `n_test`, `n_validation`, `task`, `standardise`, `shuffle`, `key`: as for `mnist`.

    **Raises:** `DataError` for numbers of samples that are no such numbers or more than there are, and what `read` raises.
    """
    require_float64((), name)
    loss = loss_of_task(task)
    standardise = require_standardise_pixels(standardise)
    (shuffle,) = require_bool(DataError, shuffle=shuffle)
    n_train = require_integer(DataError, "n_train", n_train, least=1)
    n_test = require_integer(DataError, "n_test", n_test, least=0)
    n_validation = require_integer(DataError, "n_validation", n_validation, least=0)
    train, test = read(n_test > 0)
    wanted = f"n_train + n_validation = {n_train} + {n_validation}" if n_validation else "n_train"
    own, other = (stream(key, which) if shuffle else None for which in ("train", "test"))
    total = len(train.labels)
    draw(total, n_train + n_validation, wanted, train.source, own)  # raises for more than there are
    x_train, y_train = _chosen(train, draw(total, n_train, "n_train", train.source, own))
    x_validation, y_validation = x_test, y_test = None, None
    if n_validation:
        rows = draw(total, n_validation, "n_validation", train.source, own, from_end=True)
        x_validation, y_validation = _chosen(train, rows)
    if test is not None:
        x_test, y_test = _chosen(test, draw(len(test.labels), n_test, "n_test", test.source, other))
    return Problem(
        x_train,
        y_train,
        x_test,
        y_test,
        loss=loss,
        name=name,
        x_validation=x_validation,
        y_validation=y_validation,
        standardise=standardisation_of_pixels(standardise, x_train, channels),
    )


def _chosen(images: LabelledImages, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images.pixels(rows) / LARGEST_PIXEL, np.eye(NUM_CLASSES)[images.labels[rows]]
