"""scikit-learn's handwritten digits: a small real classification."""

from typing import Any

import numpy as np

from .._core import require_float64
from ._problem import Problem
from ._scikit_learn import scikit_learn_datasets
from ._split import sets_of, split
from ._task import Task, loss_of_task

_NUM_CLASSES = 10
_LARGEST_PIXEL = 16.0


def digits(
    n_train: int = 100,
    n_test: int = 500,
    *,
    key: Any,
    n_validation: int = 0,
    task: Task = "classification",
) -> Problem:
    """The 1797 handwritten digits (8 x 8 pixels) that come with scikit-learn; C = 10 outputs, d = 64 inputs.

    Pixels are counts 0..16 and are divided by 16, so that inputs lie in [0, 1]; they are not centred. Targets are one-hot
    rows of all ten classes, even if the training samples do not show every class. The samples are shuffled by `key`. A
    smaller training set is the beginning of a larger one, and the test set depends on neither `n_train` nor `task`.

    The default is small because the tangent kernel's Gram matrix is (10 N, 10 N): 1000 x 1000 for 100 samples.

    **Arguments:**

    - `n_train`: the number of training samples, at least 1.
    - `n_test`: the number of test samples, at least 0 (0: no test data); at most 1797 samples together.
    - `key`: a JAX key.
    - `n_validation`: the number of validation samples, at least 0 (0: no validation data).
    - `task`: "classification" for the softmax cross-entropy, "regression" for the squared loss of the one-hot targets.

    **Raises:** `DataError` for more samples than there are, or if scikit-learn is missing; `ConfigError` for an unknown task;
    `PrecisionError` without float64.

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998 (its test part).
    """
    require_float64((), "digits")
    loss = loss_of_task(task)
    pixels, labels = scikit_learn_datasets("digits").load_digits(return_X_y=True)
    rows = split(len(labels), n_train, n_test, "the digits data set", key, n_validation)
    inputs = pixels / _LARGEST_PIXEL
    targets = np.eye(_NUM_CLASSES)[labels]
    return Problem(**sets_of(inputs, targets, rows), loss=loss, name="digits")
