"""Checks of targets that several losses share.

`gnflow.Problem` checks inputs and targets of any form together, and names the first wrong entry; these checks are for a loss
that is called with targets directly.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import DataError, Numbers, is_traced, require_float64


def target_array(y: Any, what: str) -> Numbers:
    """`y` as an array of finite real numbers (or bools) with one or two dimensions, none of them empty.

    A traced array is returned as it is; only its dtype and shape are checked.

    **Raises:** `DataError` (also for ragged lists), `PrecisionError` unless JAX is in double precision.
    """
    require_float64((), what)
    try:
        array = y if is_traced(y) else np.asarray(y)
    except ValueError as error:
        raise DataError(f"{what} cannot be made an array ({error}); pass an array of shape (N,) or (N, C).") from error
    if not (jnp.issubdtype(array.dtype, jnp.floating) or holds_integers(array)):
        raise DataError(f"{what} has dtype {array.dtype}, but real numbers are needed; convert it first.")
    if array.ndim not in (1, 2) or array.size == 0:
        raise DataError(
            f"{what} has shape {array.shape}, but (N,) or (N, C) with at least one sample and one column is needed; "
            "reshape it, one row for each sample."
        )
    if not is_traced(array) and not np.all(np.isfinite(array)):
        row = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise DataError(f"{what} is not finite in row {row} ({array[row]}); remove or repair samples with NaN or inf.")
    return array


def holds_integers(array: Numbers) -> bool:
    """Whether the dtype is bool or one of the integers."""
    return array.dtype == np.bool_ or jnp.issubdtype(array.dtype, jnp.integer)


def as_columns(array: Numbers) -> Float[Array, "N C"]:
    """The same numbers in float64, (N,) made (N, 1)."""
    columns = array[:, None] if array.ndim == 1 else array
    return jnp.asarray(columns.astype(np.float64))


def same_columns(
    y_train: Float[Array, "N C"], y_test: Float[Array, "n D"] | None
) -> tuple[Float[Array, "N C"], Float[Array, "n C"] | None]:
    """The two arrays, unchanged.

    **Raises:** `DataError` if they have different numbers of columns.
    """
    if y_test is not None and y_test.shape[1] != y_train.shape[1]:
        raise DataError(
            f"y_train has {y_train.shape[1]} columns but y_test has {y_test.shape[1]}; both need one column for each "
            "output of the model."
        )
    return y_train, y_test


def real_targets(y_train: Any, y_test: Any, loss: str) -> tuple[Float[Array, "N C"], Float[Array, "n C"] | None]:
    """Canonical targets (N, C) of a regression loss, from floating-point numbers (N,) or (N, C).

    **Raises:** `DataError`, also for integers: they are usually class labels, whose values mean nothing in a regression.
    """

    def real(y: Any, what: str) -> Float[Array, "N C"]:
        array = target_array(y, what)
        if holds_integers(array):
            raise DataError(
                f"{what} has dtype {array.dtype}, but {loss} fits real numbers. If these are class labels, use "
                f"SoftmaxCrossEntropy (or LogisticLoss for two classes), or one-hot rows of floats; if they are real "
                f"numbers that happen to be whole, pass {what}.astype(float)."
            )
        return as_columns(array)

    return same_columns(real(y_train, "y_train"), None if y_test is None else real(y_test, "y_test"))
