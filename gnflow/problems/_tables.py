"""Array-likes that NumPy does not read by itself: data frames, columns of objects, sparse matrices."""

import numbers
from typing import Any

import numpy as np

from .._core import DataError, require_memory

_REMEDY = "Encode text, dates and categories as numbers, and drop or fill missing values."


def as_plain_array(value: Any, what: str) -> np.ndarray:
    """`value` as a NumPy array, of numbers where it holds numbers.

    Of a data frame each column is read by itself, so that one of bools beside one of floats, nullable integers and
    categories that are numbers become numbers; a sparse matrix is made dense.

    **Arguments:** `what`: its name in messages. **Raises:** `DataError` naming the column, or the first entry, that is none.
    """
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        size = 8.0 * float(np.prod(value.shape, dtype=float))
        require_memory(DataError, f"the sparse {what}, made dense,", size, "Take fewer samples or features.")
        value = value.toarray()
    if hasattr(value, "columns") and hasattr(value, "iloc"):
        names = list(value.columns)
        columns = [_column(value.iloc[:, index], f"column {name!r} of {what}") for index, name in enumerate(names)]
        return np.column_stack(columns) if columns else np.zeros((len(value), 0))
    if hasattr(value, "iloc") and hasattr(value, "dtype"):
        return _column(value, what)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{what} is not a rectangular array of numbers ({error}).") from error
    return _of_numbers(array, what) if array.dtype == object and array.ndim > 0 else array


def _column(series: Any, what: str) -> np.ndarray:
    """A pandas column as numbers. **Raises:** `DataError`."""
    missing = np.asarray(series.isna())
    if missing.any():
        row = int(np.argmax(missing))
        raise DataError(f"{what} has no value in row {row} ({int(missing.sum())} are missing). {_REMEDY}")
    # Nullable and categorical columns come as objects; those of one type are left as they are.
    array = series.to_numpy()
    if array.dtype == object:
        return _of_numbers(array, what, str(series.dtype))
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} is of type {series.dtype}, but numbers are needed. {_REMEDY}")
    return array


def _of_numbers(array: np.ndarray, what: str, of_type: str = "object") -> np.ndarray:
    """An array of Python objects as one of numbers; one that holds anything else is named. **Raises:** `DataError`."""
    flat = array.reshape(-1)
    for index, entry in enumerate(flat):
        if not isinstance(entry, numbers.Real | np.bool_):
            place = ", ".join(str(int(i)) for i in np.unravel_index(index, array.shape))
            raise DataError(
                f"{what} is of type {of_type} and holds {entry!r} (a {type(entry).__name__}) at [{place}], but numbers are "
                f"needed. {_REMEDY}"
            )
    kinds = {
        bool if isinstance(entry, bool | np.bool_) else int if isinstance(entry, numbers.Integral) else float
        for entry in flat
    }
    try:
        return array.astype(float if float in kinds else int if int in kinds else bool)
    except OverflowError as error:
        raise DataError(f"{what} holds a number that float64 cannot hold ({error}); rescale the data.") from error


def _kind(entry: Any) -> type:
    return bool if isinstance(entry, bool | np.bool_) else int if isinstance(entry, numbers.Integral) else float
