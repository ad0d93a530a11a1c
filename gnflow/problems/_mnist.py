"""MNIST, from files that the user has."""

from pathlib import Path
from typing import Any

from .._core import DataError, as_path
from ._idx import IdxFile
from ._labelled_images import LabelledImages, image_problem, require_folder, require_labels
from ._pixels import StandardisePixels
from ._problem import Problem
from ._task import Task

_SIDE = 28
_DEBIAN = "/usr/share/datasets/fashion-mnist"
# Images, then labels.
_TRAIN = (("train-images", "idx3-ubyte"), ("train-labels", "idx1-ubyte"))
_TEST = (("t10k-images", "idx3-ubyte"), ("t10k-labels", "idx1-ubyte"))


def mnist(
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
    """MNIST's handwritten digits (28 x 28 pixels) from the files of the data set; C = 10 outputs, d = 784 inputs.

    The files are not part of gnflow and never downloaded. The function reads `train-images-idx3-ubyte` and
    `train-labels-idx1-ubyte` (60000 digits) in the folder `path` and, for test data, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte` (10000). Each may be plain or end in `.gz`, and may have a dot before `idx`. Other data sets in
    the same format (28 x 28 pixels, ten classes) are read too, such as Fashion-MNIST (MIT licence), which Debian's package
    `dataset-fashion-mnist` puts into the folder `/usr/share/datasets/fashion-mnist`.

    Pixels are 0..255 and are divided by 255, so that inputs lie in [0, 1], unless they are standardised. Targets are one-hot
    rows of all ten classes. Training samples are drawn from the training files and test samples from the test files, each by
    its own stream of `key`. So a smaller set is the beginning of a larger one, and neither set depends on the size of the other
    or on `task`.

    All labels are read and checked, but only the images that are drawn: those rows of a plain file, or everything before the
    last of them in a compressed one.

    The tangent kernel's Gram matrix is (10 N, 10 N), 839 MB for 1024 samples: take fewer for flows and metrics that form it.

    **Arguments:**

    - `path`: the folder.
    - `n_train`: the number of training samples, at least 1.
    - `n_test`: the number of test samples, at least 0 (0: no test data, and no test files are read).
    - `key`: a JAX key.
    - `n_validation`: the number of validation samples, at least 0, drawn from what is left of the training files.
    - `task`: "classification" for the softmax cross-entropy, "regression" for the squared loss of the one-hot targets.
    - `standardise`: True gives every pixel mean 0 and standard deviation 1 over the training samples, as in `gnflow.Problem`;
      "channels" does so for all pixels of an image together, as is usual for images. Test data are transformed alike.
    - `shuffle`: whether to draw the samples by `key`. False takes the first ones of the files in their order, and as
      validation images the last ones of the training files.

    **Raises:** `DataError` for a missing folder or file, a file that is damaged, truncated (as far as it is read) or of another
    format, images of another size, labels other than 0 to 9, numbers of labels and images that differ, and more samples than
    the files hold; `ConfigError` for an unknown task; `PrecisionError` without float64.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proceedings of the
    IEEE 1998.
    """

    def read(with_test: bool) -> tuple[LabelledImages, LabelledImages | None]:
        images, labels, *rest = mnist_files(path, int(with_test))
        return _read(images, labels), _read(*rest) if rest else None

    return image_problem("mnist", read, 1, n_train, n_test, n_validation, task, standardise, shuffle, key)


def mnist_files(path: str | Path, n_test: int | None = None, **_: Any) -> tuple[Path, ...]:
    """The files that `mnist` reads: training images and labels and, unless `n_test` is 0, test images and labels.

    **Raises:** `DataError` for a missing folder or file.
    """
    folder = as_path(path, "path", DataError)
    require_folder(folder)
    wanted = _TRAIN if n_test == 0 else (*_TRAIN, *_TEST)
    found = {part: _find(folder, *part) for part in wanted}
    missing = ["-".join(part) for part, file in found.items() if file is None]
    if missing:
        raise DataError(
            f"the folder {folder} lacks {', '.join(missing)} (plain or with .gz). Put the files of the data set there: "
            "they are those of the MNIST database of handwritten digits, which Yann LeCun, Corinna Cortes and Christopher "
            "J. C. Burges publish, or others of that format (Fashion-MNIST: apt install dataset-fashion-mnist puts them into "
            f"{_DEBIAN}; 5000 of MNIST's digits: gnflow.problems.mnist_5k). gnflow downloads nothing."
        )
    return tuple(file for file in found.values() if file is not None)


def _find(folder: Path, name: str, kind: str) -> Path | None:
    spellings = (f"{name}{mark}{kind}{suffix}" for suffix in ("", ".gz") for mark in "-.")
    return next((folder / spelling for spelling in spellings if (folder / spelling).is_file()), None)


def _read(images: Path, labels: Path) -> LabelledImages:
    file, classes = IdxFile(images, 3), IdxFile(labels, 1).whole()
    count, *sides = file.shape
    if sides != [_SIDE, _SIDE]:
        raise DataError(f"{images} holds images of {sides[0]} x {sides[1]} pixels, but {_SIDE} x {_SIDE} are expected.")
    if count != len(classes):
        raise DataError(
            f"{images} holds {count} images but {labels} {len(classes)} labels; they must be of the same samples."
        )
    require_labels(classes, labels)
    return LabelledImages(lambda rows: file.rows(rows).reshape(len(rows), _SIDE**2), classes, str(images))
