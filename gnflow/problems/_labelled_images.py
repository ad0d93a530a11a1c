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
) -> Problem:
    """A problem of `n_train` training and `n_test` test images, each set drawn by its own stream of `key`.

    Pixels are divided by 255. Only the images that are drawn are read and become float64. Targets are one-hot rows (n, 10).

    **Raises:** `DataError` for more samples than there are images.
    """
    x_train, y_train = _draw(train, n_train, "n_train", stream(key, "train"))
    x_test, y_test = (None, None) if test is None else _draw(test, n_test, "n_test", stream(key, "test"))
    return Problem(x_train, y_train, x_test, y_test, loss=loss, name=name)


def _draw(images: LabelledImages, count: int, what: str, key: Any) -> tuple[np.ndarray, np.ndarray]:
    rows = draw(len(images.labels), count, what, images.source, key)
    return images.pixels(rows) / _LARGEST_PIXEL, np.eye(_NUM_CLASSES)[images.labels[rows]]
