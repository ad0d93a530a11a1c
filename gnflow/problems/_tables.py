"""Convert array-likes that NumPy does not read by itself: data frames, columns of objects, sparse matrices."""

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core import DataError, require_memory, shown

_REMEDY = "Encode text, dates and categories as numbers, and drop or fill missing values."
_SHOWN_COLUMNS = 5


def is_frame(value: Any) -> bool:
    """Whether `value` is a data frame of pandas or polars. Nothing is imported to find out."""
    return hasattr(value, "columns") and (hasattr(value, "iloc") or hasattr(value, "get_columns"))


def _is_series(value: Any) -> bool:
    return hasattr(value, "dtype") and (hasattr(value, "iloc") or hasattr(value, "is_null"))


def _series_of(frame: Any) -> list[Any]:
    """The columns of a data frame."""
    if hasattr(frame, "get_columns"):
        return list(frame.get_columns())
    return [frame.iloc[:, index] for index in range(len(frame.columns))]


def column_names(value: Any) -> tuple[str, ...] | None:
    """The names of the columns of a data frame, or that of a single column; None for anything else."""
    if is_frame(value):
        return tuple(map(str, value.columns))
    name = getattr(value, "name", None) if _is_series(value) else None
    return None if name is None else (str(name),)


def only_columns(frame: Any, which: Sequence[int]) -> Any:
    """Some columns of a data frame, in this order."""
    return frame.iloc[:, list(which)] if hasattr(frame, "iloc") else frame[:, list(which)]


def only_column(value: Any, what: str) -> Any:
    """The column of a data frame that has one, as it is. Anything but data frames and columns is returned.

    **Raises:** `DataError` for missing values in it.
    """
    if is_frame(value) and len(value.columns) == 1:
        value, what = _series_of(value)[0], f"column {str(value.columns[0])!r} of {what}"
    if _is_series(value):
        _require_complete(value, what)
    return value


def require_same_columns(train: Any, test: Any, name: str) -> None:
    """Check that two data frames, x_train and `name`, have the same columns in one order. **Raises:** `DataError`."""
    if is_frame(train) and is_frame(test) and list(train.columns) != list(test.columns):
        raise DataError(
            f"x_train has the columns {list(train.columns)!r:.200} and {name} {list(test.columns)!r:.200}; give both the same "
            f"in the same order: {name}[x_train.columns]."
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
    if is_frame(value):
        named = list(zip(value.columns, _series_of(value), strict=True))
        _require_no_text(named, what)
        columns = [_column(series, f"column {name!r} of {what}") for name, series in named]
        return np.column_stack(columns) if columns else np.zeros((len(value), 0))
    if _is_series(value):
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
    """A column of pandas or polars as numbers. **Raises:** `DataError`."""
    _require_complete(series, what)
    # Nullable and categorical columns become arrays of objects here; columns of a NumPy type keep it.
    array = series.to_numpy()
    if array.dtype == object:
        return _as_numbers(array, what, str(series.dtype))
    if array.dtype.kind in "iu":
        _require_exact(array.reshape(-1), what)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} is of type {series.dtype}, but numbers are needed. {_REMEDY}")
    return array


def _require_complete(series: Any, what: str) -> None:
    missing = np.asarray(series.is_null() if hasattr(series, "is_null") else series.isna())
    if missing.any():
        row = int(np.argmax(missing))
        raise DataError(f"{what} has no value in row {row} ({int(missing.sum())} are missing). {_REMEDY}")


def _require_no_text(named: list[tuple[Any, Any]], what: str) -> None:
    """Check that no column of a data frame holds text. **Raises:** `DataError` that names all columns which do."""
    found = {name: text for name, series in named if (text := _first_text(series)) is not None}
    if not found:
        return
    names = ", ".join([*(repr(name) for name in found)][:_SHOWN_COLUMNS] + ["..."] * (len(found) > _SHOWN_COLUMNS))
    columns = "column" if len(found) == 1 else "each of the columns"
    raise DataError(
        f"{columns} {names} of {what} holds text ({shown(next(iter(found.values())))}), a category and no number. Give each "
        f"category a column of 0 and 1, with pandas.get_dummies(frame, columns=[{names}], dtype=float) or polars' "
        f"frame.to_dummies([{names}]), or leave the column out."
    )


def _first_text(series: Any) -> str | None:
    """The first text in a column; None if there is none, as far as its type tells."""
    if getattr(series.dtype, "kind", "O") in "biufcmM":
        return None
    return next((str(entry) for entry in series.to_numpy() if isinstance(entry, str)), None)


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
