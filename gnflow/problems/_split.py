"""Draw training and test samples so that a smaller training set is the beginning of a larger one."""

from typing import Any

import jax.random as jr
import numpy as np

from .._core import DataError, require_integer, stream


def split(total: int, n_train: int, n_test: int, what: str, key: Any) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of `n_train` training and `n_test` test samples, disjoint, of a data set of `total`.

    All rows are shuffled by `key` alone; the training rows are the first ones, the test rows the last. So a smaller training
    set is the beginning of a larger one, and the test rows do not depend on `n_train`.

    **Raises:** `DataError` for counts that are not integers of at least 1 (train) or 0 (test), or exceed `total` together.
    """
    n_train = require_integer(DataError, "n_train", n_train, least=1)
    n_test = require_integer(DataError, "n_test", n_test, least=0)
    if n_train + n_test > total:
        raise DataError(
            f"n_train + n_test = {n_train} + {n_test} = {n_train + n_test}, but {what} has {total} samples; "
            "ask for fewer."
        )
    shuffled = _shuffle(total, key)
    return shuffled[:n_train], shuffled[::-1][:n_test]


def draw(total: int, count: int, name: str, what: str, key: Any) -> np.ndarray:
    """Row numbers of `count` samples of a data set of `total`. A smaller draw is the beginning of a larger one.

    **Arguments:**

    - `total`: the number of samples in the data set.
    - `count`: the number of samples to draw.
    - `name`: the name of the argument `count`, for messages.
    - `what`: the data set, for messages.
    - `key`: a JAX key.

    **Raises:** `DataError` if `count` exceeds `total`.
    """
    if count > total:
        raise DataError(f"{name} = {count}, but {what} has {total} samples; ask for fewer.")
    return _shuffle(total, key)[:count]


def _shuffle(total: int, key: Any) -> np.ndarray:
    return np.asarray(jr.permutation(stream(key, "shuffle"), total))
