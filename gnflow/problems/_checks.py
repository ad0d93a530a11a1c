"""Checks of inputs and targets. Their messages name the first entry that is wrong."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .._core import DataError, Numbers, is_traced
from ._tables import as_plain_array

# The largest range of integers that float64 holds exactly.
_LARGEST_EXACT_INTEGER = 2**53


def finite_array(value: Any, what: str) -> Numbers:
    """`value` as an array of finite numbers: bools and integers as they are, floating point as float64.

    Nothing is rounded: float16, bfloat16 and float32 are converted exactly, and numbers that float64 cannot hold are refused.
    Of a traced array only the dtype is checked.

    **Arguments:**

    - `value`: any array-like, also a data frame of numbers or a sparse matrix.
    - `what`: its name in messages.

    **Raises:** `DataError` for ragged nesting, text, objects, complex numbers, masked entries, missing, NaN or infinite
    entries (the first one is named, in a data frame with its column), and numbers that float64 cannot hold exactly.
    """
    if is_traced(value):
        floating = jnp.issubdtype(value.dtype, jnp.floating)
        _require_numbers(value, what, floating)
        return value.astype(np.float64) if floating else value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        first = tuple(int(i) for i in np.argwhere(np.ma.getmaskarray(value))[0])
        raise DataError(f"{what}{_subscript(first)} is masked; fill or drop missing samples first.")
    array = as_plain_array(value, what)
    # bfloat16 and float8 of ml_dtypes are floating-point types to JAX, but of kind "V" to NumPy.
    if array.dtype.kind == "V" and array.dtype.names is None and "float" in array.dtype.name:
        array = array.astype(np.float64)
    _require_numbers(array, what, array.dtype.kind == "f")
    if array.dtype.kind == "f":
        _require_finite(array, what)
        if array.dtype.itemsize > 8:
            raise DataError(f"{what} has dtype {array.dtype}, wider than float64; round it with .astype(np.float64).")
        return array.astype(np.float64)
    if array.dtype.kind in "iu":
        inexact = (array > _LARGEST_EXACT_INTEGER) | (array < -_LARGEST_EXACT_INTEGER)
        if inexact.any():
            first = tuple(int(i) for i in np.argwhere(inexact)[0])
            raise DataError(
                f"{what}{_subscript(first)} = {array[first]} is beyond 2^53, so float64 cannot hold it exactly; "
                "rescale the data or round it with .astype(np.float64)."
            )
    return array


def input_array(value: Any, what: str) -> Numbers:
    """`value` as inputs: a float64 array (N, d) or (N, ...) without an axis of length 0.

    **Raises:** `DataError` as `finite_array` does, and for fewer than two axes, no samples or no features.
    """
    array = finite_array(value, what)
    if array.ndim < 2:
        remedy = f"; for one feature use {what}[:, None]" if array.ndim == 1 else ""
        raise DataError(
            f"{what} has shape {array.shape}, but (N, d) is needed, or (N, ...) for a model of images or sequences: one row "
            f"for each sample{remedy}."
        )
    if array.shape[0] == 0:
        raise DataError(f"{what} has shape {array.shape}: no samples. Give at least one (or None for no test data).")
    if 0 in array.shape:
        raise DataError(f"{what} has shape {array.shape}: samples without features. Give at least one column.")
    return array if array.dtype == np.float64 else array.astype(np.float64)  # floats are copies already


def raw_targets(value: Any, what: str, inputs: Numbers, inputs_name: str) -> Numbers:
    """`value` as targets (N,) or (N, C) of bools, integers or float64, one row for each row of `inputs`.

    Integers stay integers: the loss decides whether they are class labels or numbers.

    **Raises:** `DataError` as `finite_array` does, for another number of axes, and for another number of samples.
    """
    array = finite_array(value, what)
    if array.ndim not in (1, 2):
        raise DataError(f"{what} has shape {array.shape}, but (N,) or (N, C) is needed: one row for each sample.")
    if array.shape[0] != inputs.shape[0]:
        raise DataError(
            f"{what} has {array.shape[0]} rows (shape {array.shape}) but {inputs_name} has {inputs.shape[0]} (shape "
            f"{inputs.shape}); they must hold the same samples, one for each row."
        )
    return array


def _require_numbers(array: Numbers, what: str, floating: bool) -> None:
    if not (floating or array.dtype.kind in "biu"):
        raise DataError(
            f"{what} has dtype {array.dtype}, but numbers are needed (float64, or integers and narrower floats, which "
            "are converted without loss). Encode text and categories as numbers, and drop missing values."
        )


def _require_finite(array: np.ndarray, what: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{what}{_subscript(first)} = {array[first]}, but every entry must be finite ({int(bad.sum())} of "
            f"{array.size} are not). Drop or impute those samples."
        )


def _subscript(index: tuple[int, ...]) -> str:
    return f"[{', '.join(str(i) for i in index)}]" if index else ""
