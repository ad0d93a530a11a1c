"""Convert array-likes that NumPy does not read by itself: data frames, columns of objects, sparse matrices."""

import numbers
from typing import Any

import numpy as np

from .._core import DataError, require_memory, shown

_REMEDY = "Encode text, dates and categories as numbers, and drop or fill missing values."


def require_same_columns(train: Any, test: Any) -> None:
    """Check that two data frames name the same features in the same order. **Raises:** `DataError`."""
    if _is_frame(train) and _is_frame(test) and list(train.columns) != list(test.columns):
        raise DataError(
            f"x_train has the columns {list(train.columns)!r:.200} and x_test {list(test.columns)!r:.200}; give both the same "
            "in the same order: x_test[x_train.columns]."
        )


def require_same_rows(inputs: Any, targets: Any, names: tuple[str, str]) -> None:
    """Check that tables of inputs and targets have the same index. **Raises:** `DataError`."""
    if not (hasattr(inputs, "iloc") and hasattr(targets, "iloc")):
        return
    if len(inputs.index) == len(targets.index) and list(inputs.index) != list(targets.index):
        raise DataError(
            f"the rows of {names[0]} and {names[1]} have other names or another order; bring them into one, as with "
            f"{names[1]}.loc[{names[0]}.index], or drop the names with .reset_index(drop=True)."
        )


def as_plain_array(value: Any, what: str) -> np.ndarray:
    """`value` as a NumPy array, of numbers if it holds numbers.

    Each column of a data frame is converted by itself, so that columns of different types, nullable integers and categories
    that are numbers become numbers. A sparse matrix becomes dense.

    **Arguments:**

    - `value`: any array-like.
    - `what`: its name in messages.

    **Raises:** `DataError` that names the column, or the first entry, that is not a number.
    """
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        size = 8.0 * float(np.prod(value.shape, dtype=float))
        require_memory(DataError, f"the sparse {what}, made dense,", size, "Take fewer samples or features.")
        value = value.toarray()
    if _is_frame(value):
        names = list(value.columns)
        columns = [_column(value.iloc[:, index], f"column {name!r} of {what}") for index, name in enumerate(names)]
        return np.column_stack(columns) if columns else np.zeros((len(value), 0))
    if hasattr(value, "iloc") and hasattr(value, "dtype"):
        return _column(value, what)
    if isinstance(value, list | tuple) and any(
        isinstance(row, np.ma.MaskedArray) and np.ma.is_masked(row) for row in value
    ):
        raise DataError(f"{what} holds masked entries; fill or drop missing samples first.")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{what} is not a rectangular array of numbers ({error}).") from error
    if array.dtype == object and array.ndim > 0:
        return _as_numbers(array, what)
    if isinstance(value, list | tuple) and array.dtype.kind == "f":
        # Beside floating-point numbers NumPy rounds whole ones without a warning.
        entries = np.asarray(value, dtype=object).reshape(-1)
        _require_exact(np.array([entry for entry in entries if isinstance(entry, int)], dtype=object), what)
    return array


def _column(series: Any, what: str) -> np.ndarray:
    """A pandas column as numbers. **Raises:** `DataError`."""
    missing = np.asarray(series.isna())
    if missing.any():
        row = int(np.argmax(missing))
        raise DataError(f"{what} has no value in row {row} ({int(missing.sum())} are missing). {_REMEDY}")
    # Nullable and categorical columns become arrays of objects here; columns of a NumPy type keep it.
    array = series.to_numpy()
    if array.dtype == object:
        return _as_numbers(array, what, str(series.dtype))
    if array.dtype.kind in "iu":
        _require_exact(array.reshape(-1), what)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} is of type {series.dtype}, but numbers are needed. {_REMEDY}")
    return array


def _as_numbers(array: np.ndarray, what: str, of_type: str = "object") -> np.ndarray:
    """An array of Python objects as an array of numbers. **Raises:** `DataError` that names the first entry of another type."""
    flat = array.reshape(-1)
    for index, entry in enumerate(flat):
        if not isinstance(entry, numbers.Real | np.bool_):
            place = ", ".join(str(int(i)) for i in np.unravel_index(index, array.shape))
            raise DataError(
                f"{what} is of type {of_type} and holds {entry!r} (a {type(entry).__name__}) at [{place}], but numbers are "
                f"needed. {_REMEDY}"
            )
    _require_exact(flat, what)
    kinds = {_kind(entry) for entry in flat}
    try:
        return array.astype(float if float in kinds else int if int in kinds else bool)
    except OverflowError as error:
        raise DataError(f"{what} holds a number that float64 cannot hold ({error}); rescale the data.") from error


def _kind(entry: Any) -> type:
    return bool if isinstance(entry, bool | np.bool_) else int if isinstance(entry, numbers.Integral) else float


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "iloc")


def _require_exact(entries: np.ndarray, what: str) -> None:
    """Check that float64 holds every number exactly: in an array with others it would be rounded. **Raises:** `DataError`."""
    for index, entry in enumerate(entries):
        exact = int(entry) if isinstance(entry, numbers.Integral | np.bool_) else entry
        try:
            is_exact = isinstance(exact, float) or float(exact) == exact
        except OverflowError:
            is_exact = False
        if not is_exact:
            raise DataError(
                f"{what} holds {shown(exact)} in row {index}, which float64 cannot hold exactly; rescale the data or "
                "round it with float(...)."
            )
