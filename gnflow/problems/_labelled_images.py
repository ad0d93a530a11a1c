"""Make a problem of images of ten classes in separate training and test files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._core import DataError, stream
from ..losses import AbstractLoss
from ._problem import Problem
from ._split import draw

_NUM_CLASSES = 10
_LARGEST_PIXEL = 255.0


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
    wrong = np.flatnonzero(labels >= _NUM_CLASSES)
    if wrong.size:
        raise DataError(
            f"label {int(wrong[0])} in {path} is {int(labels[wrong[0]])}, but labels 0 to {_NUM_CLASSES - 1} are expected "
            f"({wrong.size} of {labels.size} are not)."
        )


def image_problem(
    train: LabelledImages,
    test: LabelledImages | None,
    n_train: int,
    n_test: int,
    loss: AbstractLoss,
    name: str,
    key: Any,
    n_validation: int = 0,
) -> Problem:
    """A problem of `n_train` training and `n_test` test images, each set drawn by its own stream of `key`.

    Validation images are drawn from the training images, from the other end of their shuffled rows.

    Pixels are divided by 255. Only the images that are drawn are read and become float64. Targets are one-hot rows (n, 10).

    **Raises:** `DataError` for more samples than there are images.
    """
    wanted = f"n_train + n_validation = {n_train} + {n_validation}" if n_validation else "n_train"
    own, total = stream(key, "train"), len(train.labels)
    draw(total, n_train + n_validation, wanted, train.source, own)  # raises for more than there are
    x_train, y_train = _chosen(train, draw(total, n_train, "n_train", train.source, own))
    x_validation, y_validation = x_test, y_test = None, None
    if n_validation:
        rows = draw(total, n_validation, "n_validation", train.source, own, from_end=True)
        x_validation, y_validation = _chosen(train, rows)
    if test is not None:
        x_test, y_test = _chosen(test, draw(len(test.labels), n_test, "n_test", test.source, stream(key, "test")))
    return Problem(
        x_train, y_train, x_test, y_test, loss=loss, name=name, x_validation=x_validation, y_validation=y_validation
    )


def _chosen(images: LabelledImages, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return images.pixels(rows) / _LARGEST_PIXEL, np.eye(_NUM_CLASSES)[images.labels[rows]]
