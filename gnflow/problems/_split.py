"""Draw training, validation and test samples so that a smaller training set is the beginning of a larger one."""

from collections.abc import Sequence
from typing import Any

import jax.random as jr
import numpy as np

from .._core import DataError, require_integer, stream
from ._sets import SETS


def split(
    total: int, n_train: int, n_test: int, what: str, key: Any, n_validation: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of training, validation and test samples, disjoint, of a data set of `total`.

    All rows are shuffled by `key` alone. The training rows are the first ones, the test rows the last, and the validation rows
    those before them. So a smaller training set is the beginning of a larger one, and the other rows do not depend on
    `n_train`.

    **Raises:** `DataError` for counts that are not integers of at least 1 (train) or 0 (validation, test), or exceed `total`
    together.
    """
    n_train = require_integer(DataError, "n_train", n_train, least=1)
    n_validation = require_integer(DataError, "n_validation", n_validation, least=0)
    n_test = require_integer(DataError, "n_test", n_test, least=0)
    counts = {"n_train": n_train, **({"n_validation": n_validation} if n_validation else {}), "n_test": n_test}
    if sum(counts.values()) > total:
        raise DataError(
            f"{' + '.join(counts)} = {' + '.join(map(str, counts.values()))} = {sum(counts.values())}, but {what} has {total} "
            "samples; ask for fewer."
        )
    shuffled = _shuffle(total, key)
    last = shuffled[::-1]
    return shuffled[:n_train], last[n_test : n_test + n_validation], last[:n_test]


def sets_of(x: Any, y: Any, rows: Sequence[np.ndarray]) -> dict[str, Any]:
    """The arguments of `Problem` for inputs and targets in these rows of training, validation and test; None for no rows."""
    chosen = dict(zip(SETS, rows, strict=True))
    return {
        f"{name}_{which}": data[own] if own.size else None
        for which, own in chosen.items()
        for name, data in (("x", x), ("y", y))
    }


def draw(total: int, count: int, name: str, what: str, key: Any, from_end: bool = False) -> np.ndarray:
    """Row numbers of `count` samples of a data set of `total`. A smaller draw is the beginning of a larger one.

    **Arguments:**

    - `total`: the number of samples in the data set.
    - `count`: the number of samples to draw.
    - `name`: the name of the argument `count`, for messages.
    - `what`: the data set, for messages.
    - `key`: a JAX key, or None to leave the rows in their order.
    - `from_end`: whether to begin at the other end of the shuffled rows, for a second draw beside the first.

    **Raises:** `DataError` if `count` exceeds `total`.
    """
    if count > total:
        raise DataError(f"{name} = {count}, but {what} has {total} samples; ask for fewer.")
    shuffled = np.arange(total) if key is None else _shuffle(total, key)
    return (shuffled[::-1] if from_end else shuffled)[:count]


def _shuffle(total: int, key: Any) -> np.ndarray:
    return np.asarray(jr.permutation(stream(key, "shuffle"), total))
